//! What is added to a module before it is compiled, so that its calls can be ended at any time (`deadline`).
//!
//! A second memory of one page, exported to the host, and a store to it at the start of every function, at the
//! start of every turn of a loop, and before every instruction whose work grows with an operand. Between two of them a
//! module can do no more than is written in it once. A start function is made an export, which the host calls under a
//! deadline like any other. Sections that no code depends on are left out.
//!
//! The module is validated as it came, with one memory at the most: nothing of its own can name the added one.

use wasm_encoder::{
    CodeSection, Encode, ExportKind, ExportSection, Instruction, MemArg, MemorySection, MemoryType, Module,
    RawSection,
    reencode::{self, Reencode, RoundtripReencoder},
};
use wasmparser::{
    Error as ParseError, ExportSectionReader, FunctionBody, MemorySectionReader, Operator, Parser, Payload,
    TypeRef, Validator, WasmFeatures,
};

/// The memory whose loss ends a call.
pub(crate) const DEADLINE: &str = "millrace:deadline";
/// The module's start function.
pub(crate) const START: &str = "millrace:start";
/// What begins the names that are ours.
const RESERVED: &str = "millrace:";

/// Raised whenever modules come out differently: what was compiled of another format is not used.
pub(crate) const FORMAT: u32 = 1;

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
}

/// Whether an export was added here.
pub(crate) fn is_added(export: &str) -> bool {
    export.starts_with(RESERVED)
}

/// The module with what is added to it. One without a memory, which is no SmartModule, comes back as it is.
pub(crate) fn instrument(wasm: &[u8]) -> Instrumenting<Vec<u8>> {
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
    let mut writer = Writer { start, ..Writer::default() };
    for payload in Parser::new(0).parse_all(wasm) {
        writer.section(wasm, payload?)?;
    }
    Ok(writer.module.finish())
}

impl Writer {
    fn section(&mut self, wasm: &[u8], payload: Payload<'_>) -> Instrumenting<()> {
        if let Payload::CodeSectionEntry(body) = payload {
            let body = self.checked(&body)?;
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
                return Err(InstrumentError::Reserved(name.escape_debug().to_string()));
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
    fn checked(&self, body: &FunctionBody<'_>) -> Instrumenting<Vec<u8>> {
        let (bytes, begin) = (body.as_bytes(), body.range().start);
        let check = self.check();
        let mut operators = body.get_operators_reader()?;
        let mut checked = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        let mut copied = 0;
        let mut check_at = |at: usize| {
            checked.extend_from_slice(&bytes[copied..at - begin]);
            checked.extend_from_slice(&check);
            copied = at - begin;
        };
        check_at(operators.original_position());
        while !operators.eof() {
            let before = operators.original_position();
            let operator = operators.read()?;
            if matches!(operator, Operator::Loop { .. }) {
                check_at(operators.original_position());
            } else if is_bulk(&operator) {
                check_at(before);
            }
        }
        checked.extend_from_slice(&bytes[copied..]);
        Ok(checked)
    }

    fn check(&self) -> Vec<u8> {
        let place = MemArg { offset: 0, align: 2, memory_index: self.memory };
        let mut check = Vec::new();
        for instruction in [Instruction::I32Const(0), Instruction::I32Const(0), Instruction::I32Store(place)]
        {
            instruction.encode(&mut check);
        }
        check
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

#[cfg(test)]
#[path = "instrument/tests.rs"]
mod tests;
