//! What every host of SmartModules is held to: the same modules and the same records give the same outputs and
//! equivalent errors, in our host and in fluvio-smartengine, Fluvio's own.
//!
//! A [`case`] is data: records in, by batch, and what has to come out. A [`host`] is behind a small trait, so that
//! another one can be held to the same. The modules are those of `smartmodules/dist`: the shipped ones, with the golden
//! cases that lie beside their sources, and the kit's own, with those in `conformance/cases`; each is there in two
//! builds, of `fluvio-smartmodule` and of `millrace-smartmodule`.

#![allow(clippy::panic, reason = "a case that cannot be read is a failure of the test that wanted it")]

pub mod case;
pub mod fluvio;
pub mod host;
pub mod millrace;
