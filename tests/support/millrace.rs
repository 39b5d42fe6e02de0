//! The binary under test, in a folder of its own, with a scrubbed environment.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A folder and the program in it.
pub struct Millrace {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Millrace {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Millrace { dir, env: Vec::new() }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// The command, to be started by the test.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(None, args)
    }

    /// As [`Millrace::command`], of another program where one is given.
    pub fn command_of(&self, program: Option<&OsStr>, args: &[&str]) -> Command {
        let mut command = Command::new(program.unwrap_or(env!("CARGO_BIN_EXE_millrace").as_ref()));
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs to the end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().expect("the program starts");
        Ran::new(args, &output, self.path())
    }

    /// Runs to the end, which must be a success.
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        ran
    }
}

/// How a run ended. The folder's path is replaced by `[DIR]`, so that output is the same everywhere.
#[derive(Debug)]
pub struct Ran {
    pub args: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn new(args: &[&str], output: &Output, dir: &Path) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&*dir.to_string_lossy(), "[DIR]");
        Ran {
            args: args.join(" "),
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// One text for a snapshot.
    pub fn snapshot(&self) -> String {
        let code = self.code.map_or("signal".to_owned(), |code| code.to_string());
        format!(
            "$ millrace {}\nexit: {code}\n--- stdout\n{}\n--- stderr\n{}\n",
            self.args,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}
