//! `#[smartmodule(KIND)]`: the author's function as it stands, and beside it the function that the host calls.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, Ident, ItemFn, Result};

/// The names of the kinds are those of the exports and of the functions in the SDK that serve them.
const KINDS: [&str; 7] = ["aggregate", "array_map", "filter", "filter_map", "init", "look_back", "map"];

pub(crate) fn export(kind: &Ident, function: &ItemFn) -> Result<TokenStream> {
    let name = kind.to_string();
    if !KINDS.contains(&name.as_str()) {
        return Err(Error::new(kind.span(), format!("a SmartModule is one of {}", KINDS.join(", "))));
    }
    let users = &function.sig.ident;
    let exported = format_ident!("__smartmodule_{kind}");
    // A closure takes `&SmartModuleRecord` to whatever the author's function wants: that, or the `&Record` in it.
    let call = match name.as_str() {
        "aggregate" => quote!(|accumulator, record| #users(accumulator, record)),
        "init" => quote!(|params| #users(params)),
        _ => quote!(|record| #users(record)),
    };
    let provenance = (name == "array_map").then(|| {
        quote! {
            #[unsafe(export_name = "millrace_provenance_v1")]
            extern "C" fn __smartmodule_provenance() {}
        }
    });
    Ok(quote! {
        #[allow(dead_code)]
        #function

        #[cfg(target_family = "wasm")]
        const _: () = {
            #[unsafe(export_name = #name)]
            extern "C" fn #exported(input: *mut u8, length: usize, version: i32) -> i32 {
                fluvio_smartmodule::guest::#kind(input, length, version, #call)
            }
            #provenance
        };
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use syn::parse_quote;

    use super::*;

    fn exported(kind: &str) -> Result<String> {
        let function = parse_quote!(
            fn f(record: &Record) -> Result<bool> {
                Ok(true)
            }
        );
        export(&format_ident!("{kind}"), &function).map(|tokens| tokens.to_string())
    }

    #[test]
    fn only_array_maps_say_that_they_keep_provenance() {
        for kind in KINDS {
            let text = exported(kind).unwrap();
            assert!(text.contains(&format!("export_name = \"{kind}\"")), "{text}");
            assert_eq!(text.contains("millrace_provenance_v1"), kind == "array_map", "{kind}");
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones() {
        let error = exported("join").unwrap_err().to_string();
        assert!(error.starts_with("a SmartModule is one of aggregate, array_map"), "{error}");
    }
}
