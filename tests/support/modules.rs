//! Modules that tests of the program deploy, as text.

/// It fails on all it is given.
pub const BREAKS: &str = r#"(module (import "env" "copy_records" (func (param i32 i32)))
    (memory (export "memory") 17)
    (func (export "alloc") (param i32) (result i32) (i32.const 65536))
    (func (export "dealloc") (param i32 i32))
    (func (export "filter") (param i32 i32 i32) (result i32) (unreachable)))"#;
