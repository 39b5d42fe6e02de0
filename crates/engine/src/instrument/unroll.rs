//! Small loops written out a few times, so that the check at the start of a turn is paid once for several turns, and
//! the compiler knows in one turn what the one before left in memory. Here twice:
//!
//! ```text
//! loop          block              left by the end of any copy
//!   body          loop             the next turn of the last copy
//! end               block          the next turn of the first copy is the second
//!                     body
//!                     br 2
//!                   end
//!                   body
//!                 end
//!               end
//! ```
//!
//! A branch to the loop is in each copy what it was: its label is the first around the copy, and leads to the next
//! copy or, from the last one, to the start. Branches out of the loop have more blocks to leave.

use wasm_encoder::{
    BlockType, Encode, Instruction,
    reencode::{Reencode, RoundtripReencoder},
};
use wasmparser::{
    BinaryReader, BinaryReaderError, FunctionBody, Operator, OperatorsReader, Validator, WasmFeatures,
};

type Reading<T> = Result<T, BinaryReaderError>;

/// How often a loop is written out at the most.
const COPIES_MAX: usize = 4;
/// The size of its body, as it came, times the copies, at the most.
const LOOP_BYTES_MAX: usize = 512;
/// Functions that are larger are left as they are: with copies and checks, which can make twenty-four times as much of
/// one, it would be more than the 7.6 MB that a function may have.
const FUNCTION_BYTES_MAX: usize = 256 << 10;
/// A module may become twice as large by this, or larger by this many bytes, whichever is more.
const GROWTH_BYTES_MIN: usize = 64 << 10;

/// With these only `br`, `br_if` and `br_table` name labels. A module that needs more is left as it is.
const FEATURES: WasmFeatures = WasmFeatures::WASM2.union(WasmFeatures::EXTENDED_CONST);

/// What is done to the loops of one module.
#[derive(Default)]
pub(super) struct Unroll {
    /// How much its code may still grow; nothing once a loop did not fit.
    left_bytes: usize,
}

/// A loop that holds no other, as far as it has been read.
struct Innermost {
    /// Where its instruction stands.
    at: usize,
    /// Where its body begins.
    body: usize,
    depth: usize,
    ty: wasmparser::BlockType,
}

impl Unroll {
    /// `wasm` must be valid.
    pub(super) fn of(wasm: &[u8]) -> Self {
        let plain = Validator::new_with_features(FEATURES).validate_all(wasm).is_ok();
        Unroll { left_bytes: if plain { wasm.len().max(GROWTH_BYTES_MIN) } else { 0 } }
    }

    /// A function with its small innermost loops written out.
    pub(super) fn function(&mut self, body: &FunctionBody<'_>) -> Reading<Vec<u8>> {
        let (bytes, begin) = (body.as_bytes(), body.range().start);
        if self.left_bytes == 0 || bytes.len() > FUNCTION_BYTES_MAX {
            return Ok(bytes.to_vec());
        }
        let mut operators = body.get_operators_reader()?;
        let mut code = Vec::with_capacity(bytes.len());
        let (mut copied, mut depth, mut innermost) = (0, 0_usize, None);
        while !operators.eof() {
            let at = operators.original_position() - begin;
            let operator = operators.read()?;
            let after = operators.original_position() - begin;
            match operator {
                Operator::Loop { blockty } => {
                    depth += 1;
                    innermost = Some(Innermost { at, body: after, depth, ty: blockty });
                }
                Operator::Block { .. } | Operator::If { .. } => depth += 1,
                Operator::End => {
                    if let Some(turn) = innermost.take_if(|turn| turn.depth == depth)
                        && let Some(written) = self.written_out(turn.ty, &bytes[turn.body..at])?
                    {
                        code.extend_from_slice(&bytes[copied..turn.at]);
                        code.extend_from_slice(&written);
                        copied = after;
                    }
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            }
        }
        code.extend_from_slice(&bytes[copied..]);
        Ok(code)
    }

    /// Nothing for a loop that is too large, or whose type is one of the module's (it has parameters or several results),
    /// and when the code has grown enough.
    fn written_out(&mut self, ty: wasmparser::BlockType, body: &[u8]) -> Reading<Option<Vec<u8>>> {
        let copies = (LOOP_BYTES_MAX / body.len().max(1)).min(COPIES_MAX);
        if copies < 2 || self.left_bytes == 0 || matches!(ty, wasmparser::BlockType::FuncType(_)) {
            return Ok(None);
        }
        let Ok(ty) = RoundtripReencoder.block_type(ty) else { return Ok(None) };
        let written = written_out(ty, body, copies)?;
        // Numbers may have been written longer than they need to be: then it has become smaller.
        let left_bytes = self.left_bytes.checked_sub(written.len().saturating_sub(body.len()));
        self.left_bytes = left_bytes.unwrap_or(0);
        Ok(left_bytes.map(|_| written))
    }
}

fn written_out(ty: BlockType, body: &[u8], copies: usize) -> Reading<Vec<u8>> {
    let mut code = Vec::with_capacity(2 * LOOP_BYTES_MAX);
    Instruction::Block(ty).encode(&mut code);
    Instruction::Loop(ty).encode(&mut code);
    for _ in 1..copies {
        Instruction::Block(BlockType::Empty).encode(&mut code);
    }
    for more in (1..=copies as u32).rev() {
        copy(&mut code, body, more)?;
        if more > 1 {
            Instruction::Br(more).encode(&mut code);
        }
        Instruction::End.encode(&mut code);
    }
    Instruction::End.encode(&mut code);
    Ok(code)
}

/// A copy of a loop's body with so many more blocks around it.
fn copy(code: &mut Vec<u8>, body: &[u8], more: u32) -> Reading<()> {
    let mut operators = OperatorsReader::new(BinaryReader::new(body, 0));
    // How many labels belong to the loop: its own and those within.
    let mut own = 1;
    let moved = |label: u32, own: u32| if label < own { label } else { label + more };
    while !operators.eof() {
        let at = operators.original_position();
        match operators.read()? {
            Operator::Br { relative_depth } => {
                Instruction::Br(moved(relative_depth, own)).encode(code);
                continue;
            }
            Operator::BrIf { relative_depth } => {
                Instruction::BrIf(moved(relative_depth, own)).encode(code);
                continue;
            }
            Operator::BrTable { targets } => {
                let default = moved(targets.default(), own);
                let labels = targets.targets().map(|label| label.map(|label| moved(label, own)));
                Instruction::BrTable(labels.collect::<Reading<_>>()?, default).encode(code);
                continue;
            }
            Operator::Block { .. } | Operator::If { .. } => own += 1,
            Operator::End => own -= 1,
            _ => {}
        }
        code.extend_from_slice(&body[at..operators.original_position()]);
    }
    Ok(())
}

#[cfg(test)]
#[path = "unroll/tests.rs"]
mod tests;
