//! What functions cannot be tasks, and what to do about it.

use quote::{ToTokens as _, quote};
use syn::{
    Error, FnArg, GenericArgument, ItemFn, PathArguments, Result, ReturnType, Type, TypeReference,
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
    match name.as_str() {
        "str" => "String".to_owned(),
        "Path" | "std::path::Path" => "std::path::PathBuf".to_owned(),
        "OsStr" | "std::ffi::OsStr" => "std::ffi::OsString".to_owned(),
        "CStr" | "std::ffi::CStr" => "std::ffi::CString".to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    /// What is said about `function`, a line for each problem.
    fn said(function: &ItemFn) -> Vec<String> {
        let problems = check(function).err().into_iter().flatten();
        problems.map(|problem| problem.to_string()).collect()
    }

    #[track_caller]
    fn refused(function: &ItemFn, expect: &[&str]) {
        let said = said(function);
        assert_eq!(said.len(), expect.len(), "{said:?}");
        for (said, expect) in said.iter().zip(expect) {
            assert!(said.contains(expect), "{said:?} does not say {expect:?}");
        }
    }

    #[test]
    fn plain_functions_are_tasks() {
        let functions: [ItemFn; 5] = [
            parse_quote!(
                fn none() {}
            ),
            parse_quote!(
                fn one(x: u64) -> u64 {
                    x
                }
            ),
            parse_quote!(
                fn two(mut a: Vec<u8>, (b, c): (i32, String)) -> Result<(), Error> {
                    Ok(())
                }
            ),
            parse_quote!(
                fn cow(x: Cow<'static, str>) -> [u8; 4] {
                    [0; 4]
                }
            ),
            parse_quote!(
                pub(crate) fn seen(_: std::collections::BTreeMap<u8, Option<f64>>) {}
            ),
        ];
        for function in &functions {
            assert_eq!(said(function), [""; 0]);
        }
    }

    #[test]
    fn references_are_refused_with_what_to_take_instead() {
        refused(
            &parse_quote!(
                fn f(x: &str) {}
            ),
            &["must be owned: use `String`"],
        );
        refused(
            &parse_quote!(
                fn f(x: &[u8]) {}
            ),
            &["use `Vec<u8>`"],
        );
        refused(
            &parse_quote!(
                fn f(x: &Path) {}
            ),
            &["use `std::path::PathBuf`"],
        );
        refused(
            &parse_quote!(
                fn f(x: &mut Job) {}
            ),
            &["use `Job`"],
        );
        refused(
            &parse_quote!(
                fn f(x: Vec<(u8, &str)>) {}
            ),
            &["use `String`"],
        );
        refused(
            &parse_quote!(
                fn f() -> &'static str {
                    ""
                }
            ),
            &["result travels between processes"],
        );
        refused(
            &parse_quote!(
                fn f(x: Cow<'_, str>) {}
            ),
            &["not borrowed"],
        );
    }

    #[test]
    fn what_has_no_one_meaning_elsewhere_is_refused() {
        refused(
            &parse_quote!(
                async fn f() {}
            ),
            &["cannot be `async`"],
        );
        refused(
            &parse_quote!(
                unsafe fn f() {}
            ),
            &["cannot be `unsafe`"],
        );
        refused(
            &parse_quote!(
                extern "C" fn f() {}
            ),
            &["without an ABI"],
        );
        refused(
            &parse_quote!(
                fn f<T>(x: T) {}
            ),
            &["cannot be generic"],
        );
        refused(
            &parse_quote!(
                fn f(x: impl Display) {}
            ),
            &["one concrete type"],
        );
        refused(
            &parse_quote!(
                fn f(&self) {}
            ),
            &["a free function"],
        );
    }

    #[test]
    fn all_problems_are_told_at_once() {
        refused(
            &parse_quote!(
                async fn f(a: &str, b: &[u8]) {}
            ),
            &["`async`", "`String`", "`Vec<u8>`"],
        );
    }
}
