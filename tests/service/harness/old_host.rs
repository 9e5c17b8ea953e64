//! A host of before: an HTTP server that answers what it is told to, to the byte, and remembers what it was asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// One answer. The connection ends with it, unless it is to stay.
#[derive(Debug, Clone)]
pub(crate) struct OldAnswer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    stays_open: bool,
}

impl OldAnswer {
    /// A body and its length.
    pub(crate) fn of(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len();
        Self::raw("200 OK", body).with("content-length", length)
    }

    /// A status and nothing else.
    pub(crate) fn status(status: &'static str) -> Self {
        Self::raw(status, Vec::new()).with("content-length", 0)
    }

    /// Without any header.
    pub(crate) fn raw(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), stays_open: false }
    }

    /// Nothing at all, on a connection that stays open.
    pub(crate) fn silence() -> Self {
        Self::raw("", Vec::new()).and_silence()
    }

    /// And then nothing, on a connection that stays open.
    pub(crate) fn and_silence(self) -> Self {
        Self { stays_open: true, ..self }
    }

    /// One more header; one of the same name is replaced.
    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_string()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        if self.status.is_empty() {
            return Vec::new();
        }
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("HTTP/1.1 {}\r\nconnection: close\r\n{headers}\r\n", self.status);
        [head.as_bytes(), &self.body].concat()
    }
}

#[derive(Clone, Default)]
struct Shared {
    /// By path and query.
    answers: Arc<Mutex<HashMap<String, OldAnswer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A running host; it ends with the test.
pub(crate) struct OldHost {
    /// Without a slash at the end.
    pub(crate) url: String,
    shared: Shared,
    serving: JoinHandle<()>,
}

impl Drop for OldHost {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl OldHost {
    pub(crate) async fn start() -> Self {
        // As `main` does; it fails only where one is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared::default();
        let for_connections = shared.clone();
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(answer(connection, for_connections.clone()));
            }
        });
        Self { url, shared, serving }
    }

    /// What is answered under this path and query, from now on.
    pub(crate) fn has(&self, path: &str, answer: OldAnswer) {
        self.shared.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// Paths and queries, in the order in which they were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

async fn answer(mut connection: TcpStream, shared: Shared) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let path = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
    let answer = shared.answers.lock().unwrap().get(&path).cloned();
    shared.asked.lock().unwrap().push(path);
    let answer = answer.unwrap_or_else(|| OldAnswer::status("404 Not Found"));
    // Whoever has heard enough may have hung up.
    let _ = connection.write_all(&answer.bytes()).await;
    if answer.stays_open {
        // Until the other side hangs up.
        let _ = connection.read_u8().await;
    }
    let _ = connection.shutdown().await;
}
