//! Exit codes of the command line: a contract with scripts.

/// What a finished command tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Fine = 0,
    Failed = 1,
    Usage = 2,
    PrecheckFailed = 3,
    Unhealthy = 4,
    NoEngine = 5,
    Interrupted = 130,
}
