//! What is added to a module before it is compiled, so that its calls can be ended at any time (`deadline`).
//!
//! A second memory of one page, exported to the host, and a store to it at the start of every function, at the
//! start of every turn of a loop, and before every instruction whose work grows with an operand. Small loops are
//! written out before that (`unroll`): one turn of theirs is then up to four of the module's. Between two stores a
//! module can do no more than is then written in it once. A start function is made an export, which the host calls under
//! a deadline like any other. Sections that no code depends on are left out.
//!
//! Neighbouring stores go to different places: a compiler may leave out one that another overwrites.
//!
//! The module is validated as it came, with one memory at the most: nothing of its own can name the added one.
//!
//! A module of few functions is compiled with inlining. How much comes of that is bounded by making functions look
//! as large as they are: what the compiler counts is values, and a function can be made of instructions that make none.

use wasm_encoder::{
    CodeSection, Encode, ExportKind, ExportSection, Instruction, MemArg, MemorySection, MemoryType, Module,
    RawSection,
    reencode::{self, Reencode, RoundtripReencoder},
};
use wasmparser::{
    BinaryReader, Error as ParseError, ExportSectionReader, FunctionBody, MemorySectionReader, Operator,
    Parser, Payload, TypeRef, Validator, WasmFeatures,
};

use crate::module::shown;

use unroll::Unroll;

mod unroll;

/// The memory whose loss ends a call.
pub(crate) const DEADLINE: &str = "millrace:deadline";
/// The module's start function.
pub(crate) const START: &str = "millrace:start";
/// What begins the names that are ours.
const RESERVED: &str = "millrace:";

/// Raised whenever modules come out differently: what was compiled of another format is not used.
pub(crate) const FORMAT: u32 = 4;

/// How many functions a module may have to be compiled with inlining. Each can grow to 2,000 values, wasmtime's bound,
/// and to what makes none beside them.
const INLINED_FUNCTIONS_MAX: u32 = 512;
/// So much work that makes no value goes with one, at the most.
const WORK_PER_VALUE: usize = 8;

/// Where checks store to, one after the other: within the smallest page there is.
const CHECK_PLACES: u32 = 1_024;

/// Why a module cannot be instrumented.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstrumentError {
    #[error(transparent)]
    Invalid(#[from] ParseError),
    #[error("a section cannot be written again")]
    Section(#[from] reencode::Error),
    #[error("it exports '{0}', and names that begin with '{RESERVED}' are the host's own")]
    Reserved(String),
}

type Instrumenting<T> = Result<T, InstrumentError>;

/// The module while it is written.
#[derive(Default)]
struct Writer {
    module: Module,
    /// While its functions are written.
    code: Option<CodeSection>,
    /// The index of the added memory, once all others are known.
    memory: u32,
    start: Option<u32>,
    /// Whether functions are to look as large as they are.
    inlines: bool,
    checks: u32,
    unroll: Unroll,
}

/// Whether an export was added here.
pub(crate) fn is_added(export: &str) -> bool {
    export.starts_with(RESERVED)
}

/// Whether a module is compiled with inlining: it is small enough for what that takes.
pub(crate) fn may_inline(wasm: &[u8]) -> bool {
    let functions = Parser::new(0).parse_all(wasm).find_map(|payload| match payload {
        Ok(Payload::FunctionSection(functions)) => Some(functions.count()),
        _ => None,
    });
    functions.is_some_and(|functions| functions <= INLINED_FUNCTIONS_MAX)
}

/// The module with what is added to it, to be compiled with inlining or without. One without a memory, which is no
/// SmartModule, comes back as it is.
pub(crate) fn instrument(wasm: &[u8], inlines: bool) -> Instrumenting<Vec<u8>> {
    let features = WasmFeatures::default().difference(WasmFeatures::MULTI_MEMORY);
    Validator::new_with_features(features).validate_all(wasm)?;
    let (mut has_memory, mut start) = (false, None);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::MemorySection(_) => has_memory = true,
            Payload::StartSection { func, .. } => start = Some(func),
            _ => {}
        }
    }
    if !has_memory {
        return Ok(wasm.to_vec());
    }
    let mut writer = Writer { start, inlines, unroll: Unroll::of(wasm), ..Writer::default() };
    for payload in Parser::new(0).parse_all(wasm) {
        writer.section(wasm, payload?)?;
    }
    Ok(writer.module.finish())
}

impl Writer {
    fn section(&mut self, wasm: &[u8], payload: Payload<'_>) -> Instrumenting<()> {
        if let Payload::CodeSectionEntry(body) = payload {
            let unrolled = self.unroll.function(&body)?;
            let body = self.checked(&FunctionBody::new(BinaryReader::new(&unrolled, 0)))?;
            self.code.get_or_insert_default().raw(&body);
            return Ok(());
        }
        if let Some(code) = self.code.take() {
            self.module.section(&code);
        }
        match payload {
            Payload::MemorySection(memories) => self.memories(memories)?,
            Payload::ExportSection(exports) => self.exports(exports)?,
            // The one is an export now, the other comes function by function, the last says nothing to a compiler.
            Payload::StartSection { .. } | Payload::CodeSectionStart { .. } | Payload::CustomSection(_) => {}
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    self.memory += u32::from(matches!(import?.ty, TypeRef::Memory(_)));
                }
                self.raw(wasm, &Payload::ImportSection(imports));
            }
            other => self.raw(wasm, &other),
        }
        Ok(())
    }

    fn raw(&mut self, wasm: &[u8], payload: &Payload<'_>) {
        if let Some((id, range)) = payload.as_section() {
            self.module.section(&RawSection { id, data: &wasm[range] });
        }
    }

    fn memories(&mut self, memories: MemorySectionReader<'_>) -> Instrumenting<()> {
        let mut section = MemorySection::new();
        RoundtripReencoder.parse_memory_section(&mut section, memories)?;
        self.memory += section.len();
        section.memory(MemoryType {
            minimum: 1,
            maximum: Some(1),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        self.module.section(&section);
        Ok(())
    }

    fn exports(&mut self, exports: ExportSectionReader<'_>) -> Instrumenting<()> {
        for export in exports.clone() {
            let name = export?.name;
            if is_added(name) {
                return Err(InstrumentError::Reserved(shown(name)));
            }
        }
        let mut section = ExportSection::new();
        RoundtripReencoder.parse_export_section(&mut section, exports)?;
        section.export(DEADLINE, ExportKind::Memory, self.memory);
        if let Some(start) = self.start {
            section.export(START, ExportKind::Func, start);
        }
        self.module.section(&section);
        Ok(())
    }

    /// A function with its checks: what lies between them is copied as it is.
    fn checked(&mut self, body: &FunctionBody<'_>) -> Instrumenting<Vec<u8>> {
        let (bytes, begin) = (body.as_bytes(), body.range().start);
        let mut operators = body.get_operators_reader()?;
        let mut checked = Vec::with_capacity(bytes.len() + bytes.len() / 2);
        let mut copied = operators.original_position() - begin;
        checked.extend_from_slice(&bytes[..copied]);
        self.check(&mut checked);
        if self.inlines {
            // At the start, which nothing before it makes unreachable. Values of the function's own are not set off against
            // them: they may be in code that is not reached, and that the compiler does not count.
            for _ in 0..work_without_value(body)? / WORK_PER_VALUE {
                Instruction::I32Const(0).encode(&mut checked);
                Instruction::Drop.encode(&mut checked);
            }
        }
        while !operators.eof() {
            let before = operators.original_position();
            let operator = operators.read()?;
            let at = match operator {
                Operator::Loop { .. } => operators.original_position(),
                _ if is_bulk(&operator) => before,
                _ => continue,
            };
            checked.extend_from_slice(&bytes[copied..at - begin]);
            self.check(&mut checked);
            copied = at - begin;
        }
        checked.extend_from_slice(&bytes[copied..]);
        Ok(checked)
    }

    fn check(&mut self, code: &mut Vec<u8>) {
        let offset = u64::from(4 * (self.checks % CHECK_PLACES));
        self.checks += 1;
        let place = MemArg { offset, align: 2, memory_index: self.memory };
        for instruction in [Instruction::I32Const(0), Instruction::I32Const(0), Instruction::I32Store(place)]
        {
            instruction.encode(code);
        }
    }
}

/// Whether an instruction works for longer the larger an operand is.
fn is_bulk(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::MemoryCopy { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryInit { .. }
            | Operator::MemoryGrow { .. }
            | Operator::TableCopy { .. }
            | Operator::TableFill { .. }
            | Operator::TableInit { .. }
            | Operator::TableGrow { .. }
    )
}

/// How much of a function's work makes no value.
fn work_without_value(body: &FunctionBody<'_>) -> Instrumenting<usize> {
    let mut all = 0;
    for operator in body.get_operators_reader()? {
        all += without_value(&operator?);
    }
    Ok(all)
}

fn without_value(operator: &Operator<'_>) -> usize {
    match operator {
        Operator::BrTable { targets } => targets.len() as usize + 1,
        Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        | Operator::Else
        | Operator::End
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        | Operator::Return
        | Operator::Unreachable
        | Operator::Call { .. }
        | Operator::CallIndirect { .. }
        | Operator::CallRef { .. }
        | Operator::ReturnCall { .. }
        | Operator::ReturnCallIndirect { .. }
        | Operator::ReturnCallRef { .. }
        | Operator::GlobalSet { .. }
        | Operator::TableSet { .. }
        | Operator::I32Store { .. }
        | Operator::I32Store8 { .. }
        | Operator::I32Store16 { .. }
        | Operator::I64Store { .. }
        | Operator::I64Store8 { .. }
        | Operator::I64Store16 { .. }
        | Operator::I64Store32 { .. }
        | Operator::F32Store { .. }
        | Operator::F64Store { .. }
        | Operator::V128Store { .. }
        | Operator::V128Store8Lane { .. }
        | Operator::V128Store16Lane { .. }
        | Operator::V128Store32Lane { .. }
        | Operator::V128Store64Lane { .. }
        | Operator::DataDrop { .. }
        | Operator::ElemDrop { .. } => 1,
        operator if is_bulk(operator) => 1,
        // What makes a value is counted by that, and the rest is no work.
        _ => 0,
    }
}

#[cfg(test)]
#[path = "instrument/tests.rs"]
mod tests;
