//! Messages in a stream of HTTP/2: read with a bound, written as fast as the other side takes them.

use std::future::poll_fn;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use prost::Message;

use super::MAX_MESSAGE;
use super::status::{Code, Status};

/// Flags and length.
const HEAD: usize = 5;

/// What comes in one direction of a call.
pub(crate) struct Incoming {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next message; `None` at the end of what is sent.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = take(&mut self.buffer)? {
                return Ok(Some(message));
            }
            match self.stream.data().await {
                Some(data) => {
                    let data = data?;
                    self.stream.flow_control().release_capacity(data.len())?;
                    self.buffer.extend_from_slice(&data);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::internal("a message has been cut off")),
            }
        }
    }

    /// The only message.
    pub(crate) async fn only<M: Message + Default>(&mut self) -> Result<M, Status> {
        let bytes = self
            .next()
            .await?
            .ok_or_else(|| Status::invalid("the call has no message"))?;
        decode(bytes)
    }

    /// The trailers, after the end.
    pub(super) async fn trailers(&mut self) -> Result<Option<http::HeaderMap>, Status> {
        Ok(self.stream.trailers().await?)
    }
}

/// Reads a message.
pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| Status::invalid(format!("cannot read a message: {error}")))
}

/// A complete message at the beginning of what has come.
fn take(buffer: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    let Some(head) = buffer.get(..HEAD) else {
        return Ok(None);
    };
    let mut head = head;
    if head.get_u8() != 0 {
        return Err(Status::unimplemented("messages are not compressed here"));
    }
    let length = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("a message of {length} bytes is larger than {MAX_MESSAGE}"),
        ));
    }
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    buffer.advance(HEAD);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// A message as it is sent.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(HEAD + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room for all of it.
    let _encoded = message.encode(&mut bytes);
    bytes.freeze()
}

/// Sends bytes, as many at a time as the other side takes.
pub(super) async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Status> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(room) = room else {
            return Err(Status::new(Code::Cancelled, "nobody reads any more"));
        };
        let piece = bytes.split_to(room?.min(bytes.len()));
        if !piece.is_empty() {
            stream.send_data(piece, false)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::session::BytesMessage;
    use super::*;

    #[test]
    fn messages_are_taken_when_they_are_complete() {
        let message = BytesMessage {
            data: Bytes::from_static(b"hello"),
        };
        let framed = framed(&message);
        let mut buffer = BytesMut::new();
        for (at, byte) in framed.iter().enumerate() {
            assert_eq!(take(&mut buffer).unwrap(), None, "{at}");
            buffer.put_u8(*byte);
        }
        buffer.put_u8(0);
        let taken = take(&mut buffer).unwrap().unwrap();
        assert_eq!(decode::<BytesMessage>(taken).unwrap(), message);
        assert_eq!(buffer.len(), 1);
    }

    #[test]
    fn compressed_and_oversized_messages_are_refused() {
        for (bytes, code) in [
            (&[1, 0, 0, 0, 0][..], Code::Unimplemented),
            (&[0, 0xff, 0xff, 0xff, 0xff][..], Code::ResourceExhausted),
            (&[0, 1, 0, 0, 1][..], Code::ResourceExhausted),
        ] {
            let error = take(&mut BytesMut::from(bytes)).unwrap_err();
            assert_eq!(error.code, code);
        }
        assert!(decode::<BytesMessage>(Bytes::from_static(&[0x0a, 0x7f])).is_err());
    }
}
