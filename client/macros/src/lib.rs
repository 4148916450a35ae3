//! The `#[fleetpool::task]` attribute. Documented where it is re-exported, in the crate `fleetpool`.
#![forbid(unsafe_code)]

mod check;
mod expand;

use proc_macro::TokenStream;

/// Makes a function a task: see `fleetpool::task`.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = match syn::parse::<syn::parse::Nothing>(attribute) {
        Ok(_) => syn::parse(item).and_then(|function| {
            check::check(&function)?;
            Ok(expand::expand(function))
        }),
        Err(error) => Err(syn::Error::new(
            error.span(),
            "`#[fleetpool::task]` takes no options",
        )),
    };
    expanded
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}
