//! What the user is shown: data on standard output, everything else on standard error, and an exit code that
//! says which kind of end it was.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use millrace_core::{Class, Error};

/// Failed at run time.
pub const FAILED: u8 = 1;
/// Wrong input or configuration.
pub const INPUT: u8 = 2;
/// A system is missing or cannot be reached.
pub const ENVIRONMENT: u8 = 3;

/// Why a command ended without success: the exit code, and what is printed.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The command did what it could and failed.
    pub fn run(message: impl Into<String>) -> Self {
        Failure { code: FAILED, message: message.into() }
    }

    /// What was typed or written is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Failure { code: INPUT, message: message.into() }
    }

    /// A system is missing.
    pub fn environment(message: impl Into<String>) -> Self {
        Failure { code: ENVIRONMENT, message: message.into() }
    }

    /// A reader that has seen enough, as `| head`: no failure at all.
    pub fn closed_pipe() -> Self {
        Failure { code: 0, message: String::new() }
    }

    /// The end of a process by a second signal.
    pub fn signal(number: u8) -> Self {
        Failure { code: 128 + number, message: String::new() }
    }

    /// Prints the message and gives the exit code.
    pub fn exit(self) -> ExitCode {
        // A list of located mistakes speaks for itself.
        let located = self.message.starts_with("error: ");
        match self.message.as_str() {
            "" => {}
            list if located => say(list),
            message => say(&format!("millrace: {message}")),
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if is_closed_pipe(&error) {
            return Failure::closed_pipe();
        }
        match error.class() {
            Class::Fatal if error.is_missing_topic() => Failure::environment(error.chain()),
            Class::Retry => Failure::environment(error.chain()),
            Class::Reject | Class::Fatal => Failure::run(error.chain()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::closed_pipe(),
            _ => Failure::run(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(io::ErrorKind::BrokenPipe) => Failure::closed_pipe(),
            _ => Failure::run(error.to_string()),
        }
    }
}

/// Whether a closed pipe is at the bottom of an error.
pub fn is_closed_pipe(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// One line to standard error. Nobody may be reading it, which is no failure of the work.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// `1 record`, `12,345 records`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `12,345`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(counted(1, "record"), "1 record");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error =
            Error::fatal("stdout", "cannot write").with_source(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(Failure::from(error).code, 0);
        assert_eq!(Failure::from(Error::retry("kafka", "away")).code, ENVIRONMENT);
        assert_eq!(Failure::from(Error::missing_topic("kafka", "t")).code, ENVIRONMENT);
    }
}
