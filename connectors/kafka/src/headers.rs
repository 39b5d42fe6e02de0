//! Reading a record's headers. librdkafka's Rust wrapper panics on a header whose name is not UTF-8, and any
//! producer can write one; so this file asks librdkafka itself.

use std::{ffi::CStr, ptr, slice, sync::Arc};

use bytes::Bytes;
use millrace_core::{Header, Headers};
use rdkafka::{
    Message,
    bindings::{rd_kafka_header_get_all, rd_kafka_headers_t},
    message::{BorrowedHeaders, BorrowedMessage, Headers as _},
    types::RDKafkaRespErr,
};

/// Copies headers; bytes of a name that are not UTF-8 are replaced.
pub fn read(message: &BorrowedMessage<'_>, none: &Headers) -> Headers {
    let Some(headers) = message.headers() else { return none.clone() };
    (0..headers.count()).map_while(|index| read_one(headers, index)).collect::<Vec<_>>().into()
}

#[expect(unsafe_code, reason = "the wrapper's own accessor panics on hostile names")]
fn read_one(headers: &BorrowedHeaders, index: usize) -> Option<Header> {
    let native = ptr::from_ref(headers).cast::<rd_kafka_headers_t>();
    let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the wrapper makes a `BorrowedHeaders` by casting the native pointer, valid while its message is;
    // the call writes to three locals and answers whether it did.
    let answer = unsafe { rd_kafka_header_get_all(native, index, &mut name, &mut value, &mut size) };
    if answer != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    // SAFETY: on success the name is a C string and the value has `size` bytes or is null; both live as long as
    // the message and are copied here.
    let (name, value) = unsafe {
        let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
        (CStr::from_ptr(name), value)
    };
    Some(Header { name: Arc::from(name.to_string_lossy()), value: value.map(Bytes::copy_from_slice) })
}
