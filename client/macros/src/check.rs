//! What functions cannot be tasks, and what to do about it.

use quote::{ToTokens as _, quote};
use syn::{
    Error, FnArg, GenericArgument, ItemFn, PathArguments, Result, ReturnType, Type, TypeReference,
    spanned::Spanned as _,
};

/// Tells everything that keeps `function` from being a task, at the places where it stands.
pub(crate) fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    let mut problems = Problems(None);
    if let Some(token) = &signature.asyncness {
        problems.add(
            token,
            "a task cannot be `async`: a worker runs one task at a time; block inside it instead",
        );
    }
    if let Some(token) = &signature.unsafety {
        problems.add(
            token,
            "a task cannot be `unsafe`: nobody could vouch for the call in the other process",
        );
    }
    if let Some(token) = &signature.abi {
        problems.add(token, "a task is a plain Rust function, without an ABI");
    }
    if !signature.generics.params.is_empty() {
        problems.add(
            &signature.generics,
            "a task cannot be generic: a worker finds it by its name alone; \
             write a task with concrete types that calls the generic function",
        );
    }
    if let Some(variadic) = &signature.variadic {
        problems.add(variadic, "a task has a fixed number of arguments");
    }
    for argument in &signature.inputs {
        match argument {
            FnArg::Receiver(receiver) => problems.add(
                receiver,
                "a task is a free function: take what is `self` here as an ordinary owned argument",
            ),
            FnArg::Typed(argument) => problems.check_type(&argument.ty, "argument"),
        }
    }
    if let ReturnType::Type(_, output) = &signature.output {
        problems.check_type(output, "result");
    }
    problems.0.map_or(Ok(()), Err)
}

struct Problems(Option<Error>);

impl Problems {
    fn add(&mut self, at: impl quote::ToTokens, message: impl std::fmt::Display) {
        let error = Error::new_spanned(at, message);
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }

    /// Looks for what is borrowed or has no one type, wherever it stands in `ty`.
    fn check_type(&mut self, ty: &Type, what: &str) {
        match ty {
            Type::Reference(reference) => {
                let owned = owned(reference);
                let advice = format!(
                    "a task's {what} travels between processes and must be owned: use `{owned}`"
                );
                self.add(ty, advice);
            }
            Type::ImplTrait(_) => self.add(ty, format!("a task's {what} needs one concrete type")),
            Type::Array(array) => self.check_type(&array.elem, what),
            Type::Paren(inner) => self.check_type(&inner.elem, what),
            Type::Group(inner) => self.check_type(&inner.elem, what),
            Type::Tuple(tuple) => tuple.elems.iter().for_each(|ty| self.check_type(ty, what)),
            Type::Path(path) => {
                for segment in &path.path.segments {
                    if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                        let arguments = arguments.args.iter();
                        arguments.for_each(|argument| self.check_argument(argument, what));
                    }
                }
            }
            _ => {}
        }
    }

    fn check_argument(&mut self, argument: &GenericArgument, what: &str) {
        match argument {
            GenericArgument::Type(ty) => self.check_type(ty, what),
            GenericArgument::Lifetime(lifetime) if lifetime.ident != "static" => self.add(
                lifetime,
                format!(
                    "a task's {what} travels between processes and must be owned, not borrowed"
                ),
            ),
            _ => {}
        }
    }
}

/// What to take in place of a reference.
fn owned(reference: &TypeReference) -> String {
    let name = match &*reference.elem {
        Type::Slice(slice) => {
            let element = slice.elem.to_token_stream();
            quote!(Vec<#element>).to_string().replace(' ', "")
        }
        other => other.to_token_stream().to_string().replace(' ', ""),
    };
    debug_assert!(
        reference
            .span()
            .source_text()
            .is_none_or(|text| text.starts_with('&'))
    );
    match name.as_str() {
        "str" => "String".to_owned(),
        "Path" | "std::path::Path" => "std::path::PathBuf".to_owned(),
        "OsStr" | "std::ffi::OsStr" => "std::ffi::OsString".to_owned(),
        "CStr" | "std::ffi::CStr" => "std::ffi::CString".to_owned(),
        _ => name,
    }
}
