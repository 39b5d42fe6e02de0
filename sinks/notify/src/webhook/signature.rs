//! The signature: `t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, t + "." + body)>`. The time is signed with the
//! body, so that a receiver can refuse what was recorded and is sent again.

use hmac::{Hmac, KeyInit, Mac};
use millrace_core::settings::Secret;
use sha2::Sha256;

/// The value of the signature header.
pub(super) fn sign(secret: &Secret, unix_s: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("invariant: HMAC takes a key of any length");
    mac.update(unix_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={unix_s},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value was made with another program: `printf '1492774577.{"a":1}' | openssl dgst -sha256 -hmac sesame`.
    #[test]
    fn agrees_with_openssl() {
        let signature = sign(&Secret::new("sesame"), 1_492_774_577, br#"{"a":1}"#);
        assert_eq!(
            signature,
            "t=1492774577,v1=17fa8e4cdd3fec60e84c473d75b3adcb113ef301ebeeba108594ca334adeae85"
        );
    }
}
