//! A Kafka broker that can be taken away: connections go through here to the real one, and are cut and refused
//! when the test says so. Answers name the proxy where they named the broker, so that no client goes around it.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// The proxy; its connections end with it.
pub struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    away: bool,
    open: Vec<TcpStream>,
}

impl Proxy {
    /// In front of `broker`, a host and a port.
    pub fn start(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let (broker, shared) = (broker.to_owned(), state.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = shared.lock().expect("no panic");
                let server = if state.away { None } else { TcpStream::connect(&broker).ok() };
                let Some(server) = server else { continue };
                state.open.extend([&client, &server].map(|stream| stream.try_clone().expect("a socket")));
                let (to, back) =
                    (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                thread::spawn(move || forward(client, to));
                let names = [place(&broker), place(&format!("127.0.0.1:{port}"))];
                thread::spawn(move || answer(server, back, &names));
            }
        });
        Proxy { address: format!("127.0.0.1:{port}"), state }
    }

    /// Where clients find it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Cuts every connection and takes no new one.
    pub fn go_away(&self) {
        let mut state = self.state.lock().expect("no panic");
        state.away = true;
        for stream in state.open.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections again.
    pub fn come_back(&self) {
        self.state.lock().expect("no panic").away = false;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.go_away();
    }
}

/// Host and port as they lie in an answer.
fn place(address: &str) -> Vec<u8> {
    let (host, port) = address.rsplit_once(':').expect("a port");
    let port: u32 = port.parse().expect("a number");
    [host.as_bytes(), &port.to_be_bytes()].concat()
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// Answers come in frames: four bytes of length, and the answer.
fn answer(mut from: TcpStream, mut to: TcpStream, [broker, proxy]: &[Vec<u8>; 2]) {
    let mut length = [0; 4];
    while from.read_exact(&mut length).is_ok() {
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        if from.read_exact(&mut frame).is_err() {
            break;
        }
        let places = frame.windows(broker.len()).enumerate().filter(|(_, window)| window == broker);
        for at in places.map(|(at, _)| at).collect::<Vec<_>>() {
            frame[at..at + proxy.len()].copy_from_slice(proxy);
        }
        if to.write_all(&length).and_then(|()| to.write_all(&frame)).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
