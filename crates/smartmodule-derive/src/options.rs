//! `SmartOpt`: a field for each parameter of its name; those that are not given keep their default.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, GenericArgument, PathArguments, Result, Type};

pub(crate) fn from_params(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "SmartOpt is derived for structs"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "SmartOpt needs fields with names"));
    };
    let name = &input.ident;
    let (idents, types): (Vec<_>, Vec<_>) = fields
        .named
        .iter()
        .map(|field| (&field.ident, inside_option(&field.ty).unwrap_or(&field.ty)))
        .unzip();
    let keys: Vec<String> = idents.iter().flat_map(|ident| ident.as_ref()).map(ToString::to_string).collect();
    let (impl_generics, type_generics, conditions) = input.generics.split_for_impl();
    Ok(quote! {
        impl #impl_generics ::std::convert::TryFrom<fluvio_smartmodule::dataplane::smartmodule::SmartModuleExtraParams>
            for #name #type_generics #conditions
        {
            type Error = ::std::string::String;

            fn try_from(
                params: fluvio_smartmodule::dataplane::smartmodule::SmartModuleExtraParams,
            ) -> ::std::result::Result<Self, Self::Error> {
                let mut options = Self::default();
                #(
                    if let Some(text) = params.get(#keys) {
                        let value = text
                            .parse::<#types>()
                            .map_err(|_| ::std::format!("parameter `{}` cannot be read", #keys))?;
                        options.#idents = value.into();
                    }
                )*
                Ok(options)
            }
        }
    })
}

/// The `T` of an `Option<T>`.
fn inside_option(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let [segment] = path.path.segments.iter().collect::<Vec<_>>()[..] else { return None };
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    match arguments.args.iter().collect::<Vec<_>>()[..] {
        [GenericArgument::Type(inner)] if segment.ident == "Option" => Some(inner),
        _ => None,
    }
}
