//! placeholder
pub trait Argv {
    fn len(&self) -> usize;
    fn arg(&self, n: usize) -> &[u8];
}
