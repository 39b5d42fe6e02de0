//! What a SmartModule's author writes against: the attribute, the types and the paths of `fluvio-smartmodule` 0.50, and
//! the same ABI, version 22. A module changes from one SDK to the other by a line of its Cargo.toml:
//!
//! ```toml
//! fluvio-smartmodule = { package = "millrace-smartmodule", path = "..." }
//! ```
//!
//! What is different is under the surface: records are slices of the input, answers are written straight into one
//! buffer that is used again from call to call, and an `array_map` tells of each output which record it was made of,
//! so that a host which can use that need not call it once for each record.
//!
//! Left out are the types that only a host handles (`SmartModuleInput`, `SmartModuleOutput`, batches), and Fluvio's
//! codec but for the encoding of parameters.
//!
//! From the outside in: `exports` is the border to the host, with all there is of unsafe code; `guest` runs the
//! author's function over a call's records; `wire` is the bytes.

mod error;
mod exports;
#[doc(hidden)]
pub mod guest;
mod params;
mod record;
mod wire;

pub use eyre::{Error, eyre};
pub use millrace_smartmodule_derive::{SmartOpt, smartmodule};

pub use crate::{
    params::SMARTMODULE_TIMESTAMPS_VERSION,
    record::{Offset, Record, RecordData, SmartModuleRecord},
};

/// What an author's function gives.
pub type Result<T> = eyre::Result<T>;

/// The code for something unknown.
pub const ENCODING_ERROR: i32 = -1;

/// The paths that authors import from.
pub mod dataplane {
    /// What belongs to SmartModules.
    pub mod smartmodule {
        pub use crate::{
            error::{
                SmartModuleInitError, SmartModuleInitErrorStatus, SmartModuleInitRuntimeError,
                SmartModuleKind, SmartModuleLookbackErrorStatus, SmartModuleLookbackRuntimeError,
                SmartModuleTransformErrorStatus, SmartModuleTransformRuntimeError,
            },
            params::{Lookback, SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams},
            record::SmartModuleRecord,
        };
    }

    /// The encoding of parameters.
    pub mod core {
        pub use crate::params::{Encoder, Version};
    }

    /// What belongs to records.
    pub mod record {
        pub use crate::record::{Offset, Record, RecordData, RecordHeader, RecordKey};
    }
}
