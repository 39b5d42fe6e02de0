//! What a module may use: the limits a pipeline sets, and the guard that enforces those on memory and tables.

use wasmtime::ResourceLimiter;

/// Elements over all of a module's tables; Rust's modules have some hundreds.
const TABLE_ELEMENTS_MAX: usize = 100_000;
const TABLES_MAX: usize = 4;

/// What one instance and one call of a module may use. See the reference page for how each is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of an instance, in bytes. An instance that has grown by half of it is replaced between calls;
    /// where it keeps no history also by its share of what all of them may grow by, 2 to 16 MiB.
    pub memory_bytes_max: usize,
    /// How long one call may run, in milliseconds of a clock that stands still while the process is stopped.
    pub timeout_ms: u64,
    /// What one call may compute, in wasmtime's units of fuel, about one an instruction. None: it is not counted, and the
    /// module runs faster.
    pub fuel_max: Option<u64>,
    /// Records in one call. 1 for modules that must not share a call between records.
    pub call_records_max: usize,
    /// Bytes of keys and values in one call; a larger record goes alone.
    pub input_bytes_max: usize,
    /// Bytes a call may answer.
    pub output_bytes_max: usize,
    /// Records a call may answer.
    pub output_records_max: usize,
    /// Records an `array_map` may make of one.
    pub fan_out_max: usize,
    /// Bytes of an aggregate's accumulator.
    pub accumulator_bytes_max: usize,
    /// Bytes of records kept for `look_back`.
    pub history_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes_max: 64 << 20,
            timeout_ms: 1_000,
            fuel_max: None,
            call_records_max: 1_000,
            input_bytes_max: 1 << 20,
            output_bytes_max: 16 << 20,
            output_records_max: 100_000,
            fan_out_max: 100_000,
            accumulator_bytes_max: 1 << 20,
            history_bytes_max: 8 << 20,
        }
    }
}

impl Limits {
    /// What is wrong with the limits themselves.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        const MEMORY_BYTES_MAX: usize = 1 << 30;
        const TIMEOUT_MS_MAX: u64 = 600_000;
        if self.memory_bytes_max > MEMORY_BYTES_MAX {
            return Err("memory_bytes_max is above 1 GiB");
        }
        if self.timeout_ms > TIMEOUT_MS_MAX {
            return Err("timeout_ms is above ten minutes");
        }
        let sizes = [
            self.memory_bytes_max,
            self.call_records_max,
            self.input_bytes_max,
            self.output_bytes_max,
            self.output_records_max,
            self.fan_out_max,
            self.accumulator_bytes_max,
            self.history_bytes_max,
        ];
        if self.timeout_ms == 0 || self.fuel_max == Some(0) || sizes.contains(&0) {
            return Err("a limit is 0");
        }
        if self.input_bytes_max > self.memory_bytes_max || self.accumulator_bytes_max > self.memory_bytes_max
        {
            return Err("a call's input is larger than the memory");
        }
        Ok(())
    }
}

/// What was asked for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory { bytes_max: usize },
    Table { elements_max: usize },
}

/// Refuses growth beyond the limits, by a trap: a guest that is told -1 goes on to something less clear.
#[derive(Debug)]
pub(crate) struct StoreGuard {
    memory_bytes_max: usize,
    fuel_max: Option<u64>,
    refused: Option<Refused>,
}

#[derive(Debug, thiserror::Error)]
#[error("growth refused")]
struct GrowthRefused;

impl StoreGuard {
    pub(crate) fn new(limits: &Limits) -> Self {
        StoreGuard { memory_bytes_max: limits.memory_bytes_max, fuel_max: limits.fuel_max, refused: None }
    }

    /// What a call may compute, where that is counted.
    pub(crate) fn fuel_max(&self) -> Option<u64> {
        self.fuel_max
    }

    /// Why the store trapped, if this guard made it.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    fn refuse(&mut self, refused: Refused) -> wasmtime::Result<bool> {
        self.refused = Some(refused);
        Err(wasmtime::Error::new(GrowthRefused))
    }
}

impl ResourceLimiter for StoreGuard {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.memory_bytes_max {
            return self.refuse(Refused::Memory { bytes_max: self.memory_bytes_max });
        }
        // The module's own maximum is its own business: it is told -1.
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            return self.refuse(Refused::Table { elements_max: TABLE_ELEMENTS_MAX });
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        // The module's own and the one that is added to it.
        2
    }
}
