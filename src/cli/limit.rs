//! `duplex limit NAME --ops N --bytes N`: the rate limits of a job, while it runs.

use super::{
    output::{self, Outcome, problem},
    places::Places,
    session,
};
use crate::model::ExitCode;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The job's name
    name: String,
    /// Changes a second and link at most; 0 is no limit
    #[arg(long, value_name = "N")]
    ops: Option<u64>,
    /// Bytes a second and link at most, such as 500kb or 10mb; 0 is no limit
    #[arg(long, value_name = "N", value_parser = bytes)]
    bytes: Option<u64>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// A number of bytes, with `kb`, `mb` or `gb` (of 1024) behind it where that is shorter.
fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = [("kb", 10), ("mb", 20), ("gb", 30), ("b", 0)]
        .into_iter()
        .find_map(|(unit, shift)| Some((lower.strip_suffix(unit)?, shift)))
        .unwrap_or((&lower, 0));
    let number: u64 = digits.trim().parse().map_err(|_| "a number, as in 1000000, 500kb, 10mb".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "a number that is not quite as big".to_owned())
}

/// Changes the limits that were named; they are kept with the job. Without any: an error that says so.
pub async fn run(places: &Places, options: Options) -> Outcome {
    session::check_name(&options.name)?;
    if options.ops.is_none() && options.bytes.is_none() {
        return Err(problem(ExitCode::Usage, "no limit is named", "give --ops, --bytes or both; 0 takes a limit away"));
    }
    let client = session::connect(places).await?;
    client.set_limits(&options.name, options.ops, options.bytes).await?;
    let limits = client.job_file(&options.name).await?.limits;
    let (ops, bytes) = (limits.max_ops_per_second, limits.max_bytes_per_second);
    if options.json {
        #[derive(Serialize)]
        struct Document<'a> {
            version: u32,
            name: &'a str,
            max_ops_per_second: u64,
            max_bytes_per_second: u64,
        }
        let name = &options.name;
        output::json(&Document { version: 1, name, max_ops_per_second: ops, max_bytes_per_second: bytes })?;
    } else {
        let shown = |n: u64, what: &str| if n == 0 { format!("any number of {what}") } else { format!("{n} {what}") };
        output::line(&format!(
            "{}: each link writes at most {} and {} a second",
            options.name,
            shown(ops, "changes"),
            shown(bytes, "bytes")
        ))?;
    }
    Ok(ExitCode::Fine)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("1000"), Ok(1000));
        assert_eq!(bytes("500kb"), Ok(500 << 10));
        assert_eq!(bytes("10 MB"), Ok(10 << 20));
        assert!(bytes("ten").is_err() && bytes("-1").is_err() && bytes("99999999999999999gb").is_err());
    }
}
