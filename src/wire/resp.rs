//! RESP: decoding frames in place, encoding commands.
