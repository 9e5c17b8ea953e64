//! The codec of the generated services. A server scans each message before it is decoded, because a few
//! bytes can decode to many times their size: a guard admits the message by the memory that it will take.
//!
//! Clients decode without a guard.

use std::{any::Any, marker::PhantomData, sync::Arc};

use bytes::Buf;
use prost::{Message, Name};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::{
    struct_limits::StructLimits,
    wire::{self, Refusal, Weight},
};

/// Decides whether a message may be decoded.
pub trait DecodeGuard: Send + Sync {
    /// Returns the limits for the structs of messages.
    fn struct_limits(&self) -> &StructLimits;

    /// Admits a message, or returns the status that rejects it.
    ///
    /// # Errors
    /// Returns a status if the message is malformed or exceeds a limit, or if there is no space for it.
    fn admit(&self, scanned: Result<Weight, Refusal>) -> Result<(), Status>;

    /// Takes over what the guard holds for the message that was admitted last.
    fn take_space(&self) -> Option<Held>;
}

/// Holds the memory of a decoded message in its budget, until it is dropped.
pub type Held = Box<dyn Any + Send>;

tokio::task_local! {
    static GUARD: Arc<dyn DecodeGuard>;
}

/// Runs a future with a guard for the messages that it decodes.
pub async fn guarded<F: Future>(guard: Arc<dyn DecodeGuard>, work: F) -> F::Output {
    GUARD.scope(guard, work).await
}

/// Runs a function with a guard for the messages that it decodes.
pub fn guarded_sync<T>(guard: Arc<dyn DecodeGuard>, work: impl FnOnce() -> T) -> T {
    GUARD.sync_scope(guard, work)
}

/// Takes over the space of the message that was decoded last in this call. Drop it as soon as the message does
/// not need it: the message is validated, or another budget counts its bytes. The call holds the space until
/// its end otherwise.
pub fn take_space() -> Option<Held> {
    GUARD.try_with(Arc::clone).ok()?.take_space()
}

/// Asks the guard of the current task, as the decoder does.
#[cfg(test)]
pub(crate) fn admit_for_test(scanned: Result<Weight, Refusal>) -> Result<(), Status> {
    GUARD.try_with(Arc::clone).map_or(Ok(()), |guard| guard.admit(scanned))
}

/// Encodes like prost, and scans messages before it decodes them.
#[derive(Debug, Clone)]
pub struct GuardedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for GuardedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for GuardedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = GuardedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        GuardedDecoder(PhantomData)
    }
}

/// Decodes messages that the guard of the task admits.
#[derive(Debug, Clone)]
pub struct GuardedDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for GuardedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The buffer is one piece: tonic collects a whole message before it is decoded.
        if let Ok(guard) = GUARD.try_with(Arc::clone) {
            guard.admit(wire::scan(&U::full_name(), buffer.chunk(), guard.struct_limits()))?;
        }
        // The code that tonic uses, too. The server converts it to MALFORMED_MESSAGE.
        U::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
