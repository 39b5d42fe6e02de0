//! The attribute `#[smartmodule(KIND)]` and the derive `SmartOpt`, as `fluvio-smartmodule` has them.
//!
//! What they generate names the SDK `fluvio_smartmodule`: a module's source names it so, whichever of the two SDKs its
//! Cargo.toml puts behind that name.

mod export;
mod options;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, Ident, ItemFn, parse_macro_input};

/// Exports a function as the module's `filter`, `map`, `filter_map`, `array_map`, `aggregate`, `init` or `look_back`.
#[proc_macro_attribute]
pub fn smartmodule(kind: TokenStream, function: TokenStream) -> TokenStream {
    let kind = parse_macro_input!(kind as Ident);
    let function = parse_macro_input!(function as ItemFn);
    export::export(&kind, &function).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a struct of options from the parameters of `init`: `TryFrom<SmartModuleExtraParams>`.
#[proc_macro_derive(SmartOpt)]
pub fn smart_opt(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    options::from_params(&input).unwrap_or_else(Error::into_compile_error).into()
}
