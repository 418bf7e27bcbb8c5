//! `duplex`: parse, run, exit code.

fn main() -> std::process::ExitCode {
    redis_duplex::cli::main()
}
