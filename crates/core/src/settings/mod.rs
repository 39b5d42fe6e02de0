//! Settings: a part of the YAML that remembers its lines, the shapes it is checked against, and the problems
//! found. One table of [`Field`]s per component serves the parser, the checks, the JSON Schema and the docs.

mod check;
mod node;
mod problem;
mod read;
mod secret;
mod shape;
mod units;

pub use check::{check_object, check_shape, did_you_mean, suggest};
pub use node::{Key, Location, Node, NodeKind};
pub use problem::{Problem, Problems};
pub use read::Settings;
pub use secret::{Secret, SecretSource};
pub use shape::{Field, Kind, Object, Shape};
pub use units::{parse_duration, parse_size};
