//! A service on a port of its own, with the tiny model, and a client that can also misbehave.

#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uwe::{BuildOptions, Compute, Encoder, EncoderOptions, Space, Targets};
use uwe_serve::{Config, Keys, Service};

/// A tiny random encoder.
pub(crate) fn encoder() -> Encoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../uwe/tests/golden/tiny-bert");
    Encoder::open(&folder, EncoderOptions::default(), Compute::new(2, None).unwrap()).unwrap()
}

/// Some targets of different lengths.
pub(crate) fn targets(count: usize) -> Targets {
    let mut targets = Targets::new("test", &["id"]);
    for index in 0..count {
        targets.push(
            &format!("task {index} with {} words", "many ".repeat(index % 7)),
            vec![format!("t:{index}")],
        );
    }
    targets
}

/// A running service; it ends when this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a service over `folder` with a space `tasks`.
    pub(crate) fn start(folder: &Path, change: impl FnOnce(&mut Config), keys: &str) -> Self {
        let mut config = Config { data: folder.to_path_buf(), ..Config::default() };
        change(&mut config);
        let service = Service::start(encoder(), (config, Keys::parse(keys).unwrap()), 1).unwrap();
        let space = Space::in_memory(service.encoder(), &targets(200), BuildOptions::default()).unwrap();
        service.add_space("tasks", space);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(service.run(listener, async {
                let _ = stopped.await;
            }));
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Gives the order to stop, and does not wait.
    pub(crate) fn order_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until it has ended.
    pub(crate) fn join(&mut self) {
        self.order_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Sends a request on a connection of its own.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The answer may come before the body has gone.
        let _ = stream.write_all(&request(method, path, headers, body));
        Answer::read(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// A counter of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until connections are taken again.
    pub(crate) fn wait_until_live(&self, longest: Duration) {
        let start = Instant::now();
        while self.get("/livez").status != 200 {
            assert!(start.elapsed() < longest);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a space.
    pub(crate) fn wait_for(&self, space: &str, state: &str) -> Value {
        let start = Instant::now();
        loop {
            let info = self.get(&format!("/v1/spaces/{space}")).json();
            if info["state"] == state {
                return info;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "{info}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.join();
    }
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    if !headers.iter().any(|(name, _)| *name == "connection") {
        text += "connection: close\r\n";
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n", body.len());
    [text.as_bytes(), body].concat()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads until the connection ends. A status of 0: it ended without an answer.
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A connection may be reset behind the answer, when the server does not read a body to its end.
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut part) {
            bytes.extend_from_slice(&part[..count]);
        }
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else { return Self { status: 0, head: String::new(), body: bytes } };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = bytes.split_off(end + 4);
        let body = if head.contains("transfer-encoding: chunked") { unchunked(&body) } else { body };
        Self { status, head, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a refusal by one of the service's own routes.
    pub(crate) fn code(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().to_string())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
        if size == 0 {
            break;
        }
    }
    whole
}

/// All files below a folder, with their names.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
