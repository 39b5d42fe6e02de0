//! `millrace run` in the background.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// A process that runs pipelines, killed when it is dropped.
pub struct Running {
    child: Child,
    address: String,
}

impl Running {
    /// Starts it; its first words are where it listens.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        // What it logs later must have a reader.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::stderr()));
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        Running { address: address.unwrap_or_else(|| panic!("{line}")).to_owned(), child }
    }

    /// The status line's code and the body of `/readyz`.
    pub fn readyz(&self) -> (u32, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    /// Ends it as a supervisor does.
    pub fn stop(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    /// Ends it as a power cut does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
