//! HTTP/1.1, one request after the other. Bodies are small here and are kept as a whole.

use std::io;

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{Fault, Rules, held, write_in_pieces};

/// A request or an answer.
struct Message {
    head: Vec<u8>,
    /// As it was sent, with the lengths between its pieces if it came in pieces.
    body: Vec<u8>,
}

pub(super) async fn converse(
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
        let fault = rules.judge(&line);
        match &fault {
            Some(Fault::Cut { after_bytes }) => {
                to_server.write_all(&request.head).await?;
                let body = &request.body[..request.body.len().min(*after_bytes)];
                return to_server.write_all(body).await;
            }
            Some(Fault::Answer { status, body }) => {
                answer(&mut to_client, *status, body).await?;
                continue;
            }
            Some(Fault::Hold(gate)) => held(gate).await,
            _ => {}
        }
        to_server.write_all(&[request.head, request.body].concat()).await?;
        let Some(said) = Message::read(&mut from_server, Some(&method)).await? else { return Ok(()) };
        match fault {
            Some(Fault::LoseAnswer) => return Ok(()),
            Some(Fault::CutAnswer { after_bytes }) => {
                to_client.write_all(&said.head).await?;
                return to_client.write_all(&said.body[..said.body.len().min(after_bytes)]).await;
            }
            Some(Fault::AnswerInstead { status, body }) => answer(&mut to_client, status, body).await?,
            Some(Fault::Trickle { piece_bytes }) => {
                write_in_pieces(&mut to_client, &[said.head, said.body].concat(), piece_bytes).await?;
            }
            _ => to_client.write_all(&[said.head, said.body].concat()).await?,
        }
    }
    Ok(())
}

async fn answer(to: &mut (impl AsyncWrite + Unpin), status: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Fault\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\n\r\n"
    );
    to.write_all(format!("{head}{body}").as_bytes()).await
}

impl Message {
    /// The next request, or the answer to one with this method. Nothing when the other side is done.
    async fn read(from: &mut (impl AsyncBufRead + Unpin), answers: Option<&str>) -> io::Result<Option<Self>> {
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
        message.read_body(from, answers).await?;
        Ok(Some(message))
    }

    async fn read_body(
        &mut self,
        from: &mut (impl AsyncBufRead + Unpin),
        answers: Option<&str>,
    ) -> io::Result<()> {
        let status = self.first_line().split(' ').nth(1).unwrap_or_default().to_owned();
        let is_bodiless =
            answers.is_some_and(|method| method == "HEAD" || ["204", "304"].contains(&&*status));
        if is_bodiless {
            return Ok(());
        }
        if let Some(length) = self.header("content-length") {
            self.body.resize(length.parse().unwrap(), 0);
            from.read_exact(&mut self.body).await?;
        } else if self.header("transfer-encoding").is_some_and(|encoding| encoding.contains("chunked")) {
            self.read_chunks(from).await?;
        } else if answers.is_some() {
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
            // The chunk and the end of its line; after the last chunk, the empty line.
            let begin = self.body.len();
            self.body.resize(begin + length + 2, 0);
            from.read_exact(&mut self.body[begin..]).await?;
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
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    }
}
