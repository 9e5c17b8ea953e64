//! A legacy HTTP host: a server that sends prepared responses byte for byte and records the requested paths.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// One response. The connection closes after it, unless it is stalled.
#[derive(Debug, Clone)]
pub(crate) struct LegacyResponse {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    stays_open: bool,
}

impl LegacyResponse {
    /// Returns a response with status 200, a body and its length.
    pub(crate) fn with_body(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len();
        Self::without_headers("200 OK", body).with_header("content-length", length)
    }

    /// Returns a response with an empty body.
    pub(crate) fn with_status(status: &'static str) -> Self {
        Self::without_headers(status, Vec::new()).with_header("content-length", 0)
    }

    pub(crate) fn without_headers(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), stays_open: false }
    }

    /// Returns a response without any bytes, on a connection that stays open.
    pub(crate) fn stalled() -> Self {
        Self::without_headers("", Vec::new()).then_stall()
    }

    /// Keeps the connection open after the last byte.
    pub(crate) fn then_stall(self) -> Self {
        Self { stays_open: true, ..self }
    }

    /// Adds a header. Replaces an earlier one of the same name.
    pub(crate) fn with_header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.retain(|(existing, _)| *existing != name);
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
    /// Responses by path and query.
    responses: Arc<Mutex<HashMap<String, LegacyResponse>>>,
    requested_paths: Arc<Mutex<Vec<String>>>,
}

/// A running host, which stops when it is dropped.
pub(crate) struct LegacyHost {
    /// The base URL without a trailing slash.
    pub(crate) url: String,
    shared: Shared,
    server: JoinHandle<()>,
}

impl Drop for LegacyHost {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl LegacyHost {
    pub(crate) async fn start() -> Self {
        // As in `main`. The call fails only if a provider is already installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared::default();
        let for_connections = shared.clone();
        let server = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(respond(connection, for_connections.clone()));
            }
        });
        Self { url, shared, server }
    }

    /// Sets the response to a path and query.
    pub(crate) fn set_response(&self, path: &str, response: LegacyResponse) {
        self.shared.responses.lock().unwrap().insert(path.to_owned(), response);
    }

    /// Returns the requested paths and queries in the order of the requests.
    pub(crate) fn requested_paths(&self) -> Vec<String> {
        self.shared.requested_paths.lock().unwrap().clone()
    }
}

async fn respond(mut connection: TcpStream, shared: Shared) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let path = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
    let response = shared.responses.lock().unwrap().get(&path).cloned();
    shared.requested_paths.lock().unwrap().push(path);
    let response = response.unwrap_or_else(|| LegacyResponse::with_status("404 Not Found"));
    // The client may have closed the connection already.
    let _ = connection.write_all(&response.bytes()).await;
    if response.stays_open {
        // Returns when the client closes the connection.
        let _ = connection.read_u8().await;
    }
    let _ = connection.shutdown().await;
}
