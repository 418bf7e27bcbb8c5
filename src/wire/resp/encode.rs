//! Commands, written.

use bytes::{BufMut, BytesMut};

/// Appends one command.
pub fn encode(out: &mut BytesMut, args: &[impl AsRef<[u8]>]) {
    out.reserve(args.iter().map(|a| a.as_ref().len() + 16).sum::<usize>() + 16);
    encode_header(out, args.len());
    for arg in args {
        encode_part(out, arg.as_ref());
    }
}

/// Appends the head of a command with this many arguments; as many [`encode_part`] must follow.
#[inline]
pub fn encode_header(out: &mut BytesMut, args: usize) {
    number(out, b'*', args);
}

/// Appends one argument.
#[inline]
pub fn encode_part(out: &mut BytesMut, arg: &[u8]) {
    number(out, b'$', arg.len());
    out.put_slice(arg);
    out.put_slice(b"\r\n");
}

/// Appends one argument that is a number, in decimal.
#[inline]
pub fn encode_part_int(out: &mut BytesMut, value: impl itoa::Integer) {
    encode_part(out, itoa::Buffer::new().format(value).as_bytes());
}

/// How many bytes [`encode`] appends.
pub fn encoded_len(args: &[impl AsRef<[u8]>]) -> usize {
    let digits = |n: usize| itoa::Buffer::new().format(n).len();
    3 + digits(args.len()) + args.iter().map(|a| 5 + digits(a.as_ref().len()) + a.as_ref().len()).sum::<usize>()
}

#[inline]
fn number(out: &mut BytesMut, marker: u8, n: usize) {
    out.put_u8(marker);
    out.put_slice(itoa::Buffer::new().format(n).as_bytes());
    out.put_slice(b"\r\n");
}
