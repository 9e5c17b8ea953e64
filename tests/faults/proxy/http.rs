//! Forwards HTTP/1.1, one request at a time. Bodies are small in the tests and are buffered completely.

use std::io;

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{Fault, Rules, wait_for_permit, write_in_pieces};

/// A request or a response.
struct Message {
    head: Vec<u8>,
    /// The body as it was sent, including the chunk sizes of a chunked body.
    body: Vec<u8>,
}

pub(super) async fn forward(
    client: TcpStream,
    server_reader: impl AsyncRead + Unpin,
    mut to_server: impl AsyncWrite + Unpin,
    rules: &Rules,
) -> io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_client, mut from_server) = (BufReader::new(from_client), BufReader::new(server_reader));
    while let Some(request) = Message::read(&mut from_client, None).await? {
        let line = request.first_line().to_owned();
        let method = line.split(' ').next().unwrap_or_default().to_owned();
        let fault = rules.find_fault(&line);
        match &fault {
            Some(Fault::CutRequest { after_bytes }) => {
                to_server.write_all(&request.head).await?;
                let body = &request.body[..request.body.len().min(*after_bytes)];
                return to_server.write_all(body).await;
            }
            Some(Fault::Respond { status, body }) => {
                write_response(&mut to_client, *status, body).await?;
                continue;
            }
            Some(Fault::Hold(gate)) => wait_for_permit(gate).await,
            _ => {}
        }
        to_server.write_all(&[request.head, request.body].concat()).await?;
        let Some(response) = Message::read(&mut from_server, Some(&method)).await? else { return Ok(()) };
        match fault {
            Some(Fault::DropResponse) => return Ok(()),
            Some(Fault::CutResponse { after_bytes }) => {
                to_client.write_all(&response.head).await?;
                return to_client.write_all(&response.body[..response.body.len().min(after_bytes)]).await;
            }
            Some(Fault::ReplaceResponse { status, body }) => {
                write_response(&mut to_client, status, body).await?
            }
            Some(Fault::TrickleResponse { piece_bytes }) => {
                write_in_pieces(&mut to_client, &[response.head, response.body].concat(), piece_bytes)
                    .await?;
            }
            _ => to_client.write_all(&[response.head, response.body].concat()).await?,
        }
    }
    Ok(())
}

async fn write_response(to: &mut (impl AsyncWrite + Unpin), status: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Fault\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\n\r\n"
    );
    to.write_all(format!("{head}{body}").as_bytes()).await
}

impl Message {
    /// Reads a request, or the response to a request with the given method. Returns `None` at the end of the
    /// connection.
    async fn read(
        from: &mut (impl AsyncBufRead + Unpin),
        request_method: Option<&str>,
    ) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        loop {
            let before = head.len();
            if from.read_until(b'\n', &mut head).await? == 0 {
                return Ok(None);
            }
            if &head[before..] == b"\r\n" {
                break;
            }
        }
        let mut message = Self { head, body: Vec::new() };
        message.read_body(from, request_method).await?;
        Ok(Some(message))
    }

    async fn read_body(
        &mut self,
        from: &mut (impl AsyncBufRead + Unpin),
        request_method: Option<&str>,
    ) -> io::Result<()> {
        let status = self.first_line().split(' ').nth(1).unwrap_or_default().to_owned();
        let is_bodiless =
            request_method.is_some_and(|method| method == "HEAD" || ["204", "304"].contains(&&*status));
        if is_bodiless {
            return Ok(());
        }
        if let Some(length) = self.header("content-length") {
            self.body.resize(length.parse().unwrap(), 0);
            from.read_exact(&mut self.body).await?;
        } else if self.header("transfer-encoding").is_some_and(|encoding| encoding.contains("chunked")) {
            self.read_chunks(from).await?;
        } else if request_method.is_some() {
            from.read_to_end(&mut self.body).await?;
        }
        Ok(())
    }

    async fn read_chunks(&mut self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        loop {
            let before = self.body.len();
            from.read_until(b'\n', &mut self.body).await?;
            let line = String::from_utf8_lossy(&self.body[before..]).trim().to_owned();
            let length = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16).unwrap();
            // Read the chunk and its line ending, or the empty line after the last chunk.
            let start = self.body.len();
            self.body.resize(start + length + 2, 0);
            from.read_exact(&mut self.body[start..]).await?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn first_line(&self) -> &str {
        let end = self.head.iter().position(|byte| *byte == b'\r').unwrap_or(self.head.len());
        std::str::from_utf8(&self.head[..end]).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.head);
        text.lines().find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    }
}
