//! Puts the SQLSTATE of each error that the server sends in front of its message: `53100: could not extend file`.
//!
//! The query builder reports the message of an error, but no SQLSTATE, and the message has the language of
//! `lc_messages`, which only a superuser can set. So the code is added where the bytes arrive, before the driver
//! decodes them. Poolers pass on the errors of the server, and have codes for their own.

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// The type of an error message in the protocol of PostgreSQL.
const ERROR_RESPONSE: u8 = b'E';
/// The type of a message, and the length of the rest of it, which includes the length itself.
const HEADER_BYTES: usize = 5;
const CODE_BYTES: usize = 5;

/// Returns the SQLSTATE and the message of an error that came through a [`CodedStream`].
pub(in crate::db) fn split_code(message: &str) -> (Option<&str>, &str) {
    let is_code = |code: &&str| {
        code.len() == CODE_BYTES
            && code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
    };
    match message.split_once(": ") {
        Some((code, rest)) if is_code(&code) => (Some(code), rest),
        _ => (None, message),
    }
}

/// A stream from the server, whose errors have their SQLSTATE in the message. Bytes to the server are not changed.
pub(super) struct CodedStream<S> {
    inner: S,
    read_binding: fn(&S) -> ChannelBinding,
    errors: ErrorRewriter,
    /// Bytes that were changed and not yet read.
    ready: Vec<u8>,
}

impl<S> CodedStream<S> {
    pub(super) fn new(inner: S, read_binding: fn(&S) -> ChannelBinding) -> Self {
        Self { inner, read_binding, errors: ErrorRewriter::default(), ready: Vec::new() }
    }

    /// Returns a stream without TLS.
    pub(super) fn in_clear(inner: S) -> Self {
        Self::new(inner, |_| ChannelBinding::none())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CodedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        while buffer.remaining() > 0 {
            if !stream.ready.is_empty() {
                let taken = stream.ready.len().min(buffer.remaining());
                buffer.put_slice(&stream.ready[..taken]);
                stream.ready.drain(..taken);
                break;
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut stream.inner).poll_read(context, buffer))?;
            let received = &buffer.filled()[before..];
            if received.is_empty() {
                // The stream has ended, perhaps inside an error.
                stream.ready = stream.errors.take_incomplete();
                if stream.ready.is_empty() {
                    break;
                }
                continue;
            }
            let unchanged = stream.errors.pass(received);
            stream.errors.rewrite(&received[unchanged..], &mut stream.ready);
            buffer.set_filled(before + unchanged);
            if unchanged > 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CodedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for CodedStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        (self.read_binding)(&self.inner)
    }
}

/// Finds the errors among the messages of the server, which arrive in pieces of any size.
#[derive(Debug)]
struct ErrorRewriter(Position);

/// What the next byte belongs to.
#[derive(Debug)]
enum Position {
    /// The header of a message, of which these bytes have arrived.
    Header { bytes: [u8; HEADER_BYTES], len: usize },
    /// A message of another type.
    Other { remaining_bytes: usize },
    /// An error, of which these bytes have arrived.
    Error(Vec<u8>),
}

impl Position {
    const START: Self = Self::Header { bytes: [0; HEADER_BYTES], len: 0 };
}

impl Default for ErrorRewriter {
    fn default() -> Self {
        Self(Position::START)
    }
}

impl ErrorRewriter {
    /// Returns how many of the bytes come before the next error.
    fn pass(&mut self, received: &[u8]) -> usize {
        let mut at = 0;
        while at < received.len() {
            match &mut self.0 {
                Position::Header { len: 0, .. } if received[at] == ERROR_RESPONSE => {
                    self.0 = Position::Error(Vec::new());
                }
                Position::Header { bytes, len } => {
                    bytes[*len] = received[at];
                    (at, *len) = (at + 1, *len + 1);
                    if *len == HEADER_BYTES {
                        let remaining_bytes = message_bytes(bytes) - HEADER_BYTES;
                        self.0 = Position::Other { remaining_bytes };
                    }
                }
                Position::Other { remaining_bytes: 0 } => self.0 = Position::START,
                Position::Other { remaining_bytes } => {
                    let taken = (received.len() - at).min(*remaining_bytes);
                    *remaining_bytes -= taken;
                    at += taken;
                }
                Position::Error(_) => break,
            }
        }
        at
    }

    /// Adds the bytes to `ready`, with the codes in the messages of errors. Keeps the bytes of an error that is not
    /// complete yet.
    fn rewrite(&mut self, mut received: &[u8], ready: &mut Vec<u8>) {
        while !received.is_empty() {
            let Position::Error(error) = &mut self.0 else {
                let unchanged = self.pass(received);
                ready.extend_from_slice(&received[..unchanged]);
                received = &received[unchanged..];
                continue;
            };
            let end = error.first_chunk().map_or(HEADER_BYTES, message_bytes);
            let taken = (end - error.len()).min(received.len());
            error.extend_from_slice(&received[..taken]);
            received = &received[taken..];
            if error.first_chunk().is_some_and(|header| message_bytes(header) == error.len()) {
                ready.append(&mut with_code_in_message(mem::take(error)));
                self.0 = Position::START;
            }
        }
    }

    /// Returns the bytes of an error that did not arrive completely.
    fn take_incomplete(&mut self) -> Vec<u8> {
        match &mut self.0 {
            Position::Error(error) => mem::take(error),
            Position::Header { .. } | Position::Other { .. } => Vec::new(),
        }
    }
}

/// Returns the length of a message with this header, in bytes.
fn message_bytes(header: &[u8; HEADER_BYTES]) -> usize {
    let [_, length @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    length.saturating_add(1).max(HEADER_BYTES)
}

/// Returns the error with its code in front of its message, or as it is if it has none.
fn with_code_in_message(mut error: Vec<u8>) -> Vec<u8> {
    let Some((mut prefix, at)) = find_code_and_message(&error) else { return error };
    prefix.extend_from_slice(b": ");
    let Ok(length) = u32::try_from(error.len() - 1 + prefix.len()) else { return error };
    error[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    error.splice(at..at, prefix);
    error
}

/// Returns the code of an error, and where its message begins. Each field is a type and a text that ends with 0.
fn find_code_and_message(error: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut code, mut message, mut at) = (None, None, HEADER_BYTES);
    while let Some(field) = error.get(at).filter(|field| **field != 0) {
        let text = error.get(at + 1..)?;
        let text = &text[..text.iter().position(|byte| *byte == 0)?];
        match field {
            b'C' => code = Some(text).filter(|code| code.len() == CODE_BYTES),
            b'M' => message = Some(at + 1),
            _ => {}
        }
        at += 1 + text.len() + 1;
    }
    Some((code?.to_vec(), message?))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    const FULL: &[u8] = b"SFEHLER\0VERROR\0C53100\0Mkein Platz\0Fmd.c\0\0";
    const FULL_WITH_CODE: &[u8] = b"SFEHLER\0VERROR\0C53100\0M53100: kein Platz\0Fmd.c\0\0";
    const UNKNOWN: &[u8] = b"SERROR\0Mno code\0\0";

    fn sent() -> Vec<u8> {
        let messages = [
            message(b'Z', b"I"),
            message(b'E', FULL),
            message(b'D', b"E, EEEEEE"),
            message(b'1', b""),
            message(b'E', UNKNOWN),
            message(b'E', FULL),
            message(b'Z', b"E"),
        ];
        messages.concat()
    }

    fn expected() -> Vec<u8> {
        let messages = [
            message(b'Z', b"I"),
            message(b'E', FULL_WITH_CODE),
            message(b'D', b"E, EEEEEE"),
            message(b'1', b""),
            message(b'E', UNKNOWN),
            message(b'E', FULL_WITH_CODE),
            message(b'Z', b"E"),
        ];
        messages.concat()
    }

    #[tokio::test]
    async fn errors_get_their_code_in_pieces_of_any_size() {
        for piece in 1..=sent().len() {
            let mut pieces = stream_of(&sent(), piece);
            let mut received = Vec::new();
            pieces.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, expected(), "{piece}");
        }
    }

    #[tokio::test]
    async fn incomplete_error_is_passed_on_at_the_end() {
        let error = message(b'E', FULL);
        for end in 1..error.len() {
            let mut received = Vec::new();
            stream_of(&error[..end], 7).read_to_end(&mut received).await.unwrap();
            assert_eq!(received, error[..end], "{end}");
        }
    }

    #[tokio::test]
    async fn small_buffers_read_the_whole_error() {
        let sent = message(b'E', FULL);
        let mut stream = stream_of(&sent, sent.len());
        let mut received = Vec::new();
        for _ in 0..message(b'E', FULL_WITH_CODE).len() {
            received.push(stream.read_u8().await.unwrap());
        }
        assert_eq!(received, message(b'E', FULL_WITH_CODE));
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn codes_are_split_from_messages() {
        assert_eq!(split_code("53100: kein Platz: /data"), (Some("53100"), "kein Platz: /data"));
        assert_eq!(split_code("40P01: deadlock"), (Some("40P01"), "deadlock"));
        for message in ["connection closed", "error: too long", "ERROR", "Error: 53100"] {
            assert_eq!(split_code(message), (None, message));
        }
    }

    /// Returns a stream from which the bytes arrive in pieces of this size.
    fn stream_of(bytes: &[u8], piece: usize) -> CodedStream<Pieces> {
        let pieces = bytes.chunks(piece).rev().map(<[u8]>::to_vec).collect();
        CodedStream::in_clear(Pieces(pieces))
    }

    /// A stream of pieces, the last one first.
    struct Pieces(Vec<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop() {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }
}
