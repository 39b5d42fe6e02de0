//! Modules in text that behave until they see the marker: a small host of the guest's side of the ABI.

/// A record with this byte in it makes a module sin.
pub const MARK: char = '!';

/// What the transform's body may use: `$p` and `$n` are the input, `$raw` where its records begin (a count and the
/// records), `$len` their bytes. The input after the records begins with a zero byte, which is "no error": so
/// handing over `$raw`, `$len + 1` passes all records on.
const PRELUDE: &str = r#"
  (import "env" "copy_records" (func $copy_records (param i32 i32)))
  (memory (export "memory") 2)
  (func $be32 (param $p i32) (result i32)
    (i32.or (i32.or (i32.shl (i32.load8_u (local.get $p)) (i32.const 24))
                    (i32.shl (i32.load8_u offset=1 (local.get $p)) (i32.const 16)))
            (i32.or (i32.shl (i32.load8_u offset=2 (local.get $p)) (i32.const 8))
                    (i32.load8_u offset=3 (local.get $p)))))
  (func $put32 (param $p i32) (param $v i32)
    (i32.store8 (local.get $p) (i32.shr_u (local.get $v) (i32.const 24)))
    (i32.store8 offset=1 (local.get $p) (i32.shr_u (local.get $v) (i32.const 16)))
    (i32.store8 offset=2 (local.get $p) (i32.shr_u (local.get $v) (i32.const 8)))
    (i32.store8 offset=3 (local.get $p) (local.get $v)))
  (func $marked (param $raw i32) (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (i32.const 4))
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $len)) (then (return (i32.const 0))))
      (if (i32.eq (i32.load8_u (i32.add (local.get $raw) (local.get $at))) (i32.const 33)) (then (return (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))
  (func $pass (param $raw i32) (param $len i32) (result i32)
    (call $copy_records (local.get $raw) (i32.add (local.get $len) (i32.const 1)))
    (call $be32 (local.get $raw)))
"#;

const ALLOC: &str = r#"
  (func (export "alloc") (param $size i32) (result i32)
    (local $need i32)
    (local.set $need (i32.sub
      (i32.shr_u (i32.add (local.get $size) (i32.const 131071)) (i32.const 16))
      (memory.size)))
    (if (i32.gt_s (local.get $need) (i32.const 0)) (then (drop (memory.grow (local.get $need)))))
    (i32.const 65536))
"#;

/// A module of `kind` whose transform is `body`, with further `fields`.
pub fn module_with(kind: &str, fields: &str, body: &str) -> String {
    format!(
        r#"(module {PRELUDE} {fields}
          (func (export "{kind}") (param $p i32) (param $n i32) (param $version i32) (result i32)
            (local $raw i32) (local $len i32)
            (local.set $raw (i32.add (local.get $p) (i32.const 12)))
            (local.set $len (call $be32 (i32.add (local.get $p) (i32.const 8))))
            {body}))"#
    )
}

/// A module of `kind` that passes all on, with further `fields`.
pub fn passes(kind: &str, fields: &str) -> String {
    module_with(kind, &format!("{ALLOC} {fields}"), "(call $pass (local.get $raw) (local.get $len))")
}

/// A module of `kind` that passes on what is unmarked and does `sin` with what is not: an expression of type i32.
pub fn sinner(kind: &str, sin: &str) -> String {
    sinner_with(kind, "", sin)
}

pub fn sinner_with(kind: &str, fields: &str, sin: &str) -> String {
    let body = format!(
        "(if (result i32) (call $marked (local.get $raw) (local.get $len))
           (then {sin})
           (else (call $pass (local.get $raw) (local.get $len))))"
    );
    module_with(kind, &format!("{ALLOC} {fields}"), &body)
}

/// A module that answers these bytes for what is marked.
pub fn answers(kind: &str, hex: &str) -> String {
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|index| {
            u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("the test's bytes are hex")
        })
        .collect();
    let data: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let sin = format!("(call $copy_records (i32.const 16) (i32.const {})) (i32.const 1)", bytes.len());
    sinner_with(kind, &format!(r#"(data (i32.const 16) "{data}")"#), &sin)
}

/// A module with its own `alloc`, that for lengths above 200 bytes answers `pointer`.
pub fn bad_alloc(pointer: &str) -> String {
    let alloc = format!(
        r#"(func (export "alloc") (param $size i32) (result i32)
             (select (i32.const {pointer}) (i32.const 65536) (i32.gt_u (local.get $size) (i32.const 200))))"#
    );
    module_with("filter", &alloc, "(call $pass (local.get $raw) (local.get $len))")
}
