//! The `#[fleetpool::task]` attribute. Documented where it is re-exported, in the crate `fleetpool`.
#![forbid(unsafe_code)]

mod check;
mod expand;

use proc_macro::TokenStream;

/// Makes a function one that pools can run in other processes.
///
/// The function keeps its name, its documentation and its visibility, and can still be called as it is. Its name is
/// also a value, of a unit struct of that name, that stands for it when it is given to a pool. (A variable in the
/// same scope can therefore not have that name.)
///
/// A worker finds the function by its path in the program, and its arguments and result travel as
/// [`serde`](https://serde.rs) data. Hence the function must be free, not generic and not `async`; its arguments and its result
/// must be owned values that implement `Serialize` and `Deserialize`. A function of several arguments takes a tuple
/// from the pool, one without any takes `()`.
///
/// ```
/// /// How long the hypotenuse is.
/// #[fleetpool::task]
/// fn hypotenuse(a: f64, b: f64) -> f64 {
///     a.hypot(b)
/// }
///
/// assert_eq!(hypotenuse(3.0, 4.0), 5.0);
/// # fn in_a_pool(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
/// let long = pool.apply(hypotenuse, (3e6, 4e6))?;
/// # Ok(()) }
/// ```
///
/// What cannot travel is refused when the program is compiled:
///
/// ```compile_fail
/// #[fleetpool::task]
/// fn length(text: &str) -> usize { // take a `String`
///     text.len()
/// }
/// ```
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
