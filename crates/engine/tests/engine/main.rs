//! The engine as the runtime uses it: real modules in a real host.
//!
//! - `load`: what is a SmartModule and what is refused, with words that help
//! - `kinds`: each kind's outputs, their origins, parameters, user errors, accumulators
//! - `hostile`: modules named by their sin; each hurts only its own record
//! - `look_back`: history, and priming again after an instance is replaced
//! - `guests`: modules built by `fluvio-smartmodule`: the shipped ones by their cases, the plain ones by hand

mod guests;
mod hostile;
mod kinds;
mod load;
mod look_back;
mod sins;
mod support;
