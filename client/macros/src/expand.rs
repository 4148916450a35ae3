//! What a function that may be a task becomes.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, FnArg, ItemFn, ReturnType, Type};

/// The unit struct, what it does, and its entry in the program's list of tasks.
pub(crate) fn expand(mut function: ItemFn) -> TokenStream {
    let (outer, inner): (Vec<_>, Vec<_>) = function.attrs.drain(..).partition(is_outer);
    let conditions: Vec<_> = outer.iter().filter(|a| a.path().is_ident("cfg")).collect();
    function.attrs = inner;
    let visibility = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);
    let name = function.sig.ident.clone();

    let types: Vec<Type> = function.sig.inputs.iter().filter_map(typed).collect();
    let arguments: Vec<_> = (0..types.len()).map(|n| format_ident!("a{n}")).collect();
    let (input, pattern) = match (&types[..], &arguments[..]) {
        ([ty], [argument]) => (quote!(#ty), quote!(#argument)),
        _ => (quote!((#(#types),*)), quote!((#(#arguments),*))),
    };
    let output = match &function.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    };

    quote! {
        #(#outer)*
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug)]
        #visibility struct #name;

        #(#conditions)*
        impl ::core::ops::Deref for #name {
            type Target = fn(#(#types),*) -> #output;

            fn deref(&self) -> &Self::Target {
                #function
                const CALL: fn(#(#types),*) -> #output = #name;
                &CALL
            }
        }

        #(#conditions)*
        impl ::fleetpool::Task for #name {
            type Input = #input;
            type Output = #output;
            const NAME: &'static str =
                ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name));

            fn call(#pattern: Self::Input) -> Self::Output {
                (*#name)(#(#arguments),*)
            }
        }

        #(#conditions)*
        ::fleetpool::__private::inventory::submit! {
            ::fleetpool::__private::Entry::of::<#name>()
        }
    }
}

/// Whether an attribute says something about the name, not about the body.
fn is_outer(attribute: &Attribute) -> bool {
    let path = attribute.path();
    ["doc", "cfg", "deprecated"]
        .iter()
        .any(|name| path.is_ident(name))
}

fn typed(argument: &FnArg) -> Option<Type> {
    match argument {
        FnArg::Typed(argument) => Some((*argument.ty).clone()),
        FnArg::Receiver(_) => None,
    }
}
