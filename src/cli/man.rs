//! `duplex man`: the manual page, from the same definitions as the help, and the parts in `assets/man`.

use super::{
    Cli,
    output::{self, Ending, Outcome},
};
use crate::model::ExitCode;
use clap::CommandFactory;
use std::io::{self, Write};

/// Job file, files, environment, exit codes, examples.
const AFTER: &str = include_str!("../../assets/man/after.roff");

pub fn run() -> Outcome {
    output::print(&page().map_err(Ending::from)?)?;
    Ok(ExitCode::Fine)
}

fn page() -> io::Result<String> {
    let mut command = Cli::command();
    command.build();
    let man = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for command in command.get_subcommands() {
        let about = command.get_about().map(|a| a.to_string()).unwrap_or_default();
        writeln!(page, ".SS \"duplex {}\"\n{}", command.get_name(), escape(&about))?;
        let mut part = Vec::new();
        // Every command has --help; the page says so once.
        let man = clap_mangen::Man::new(command.clone().mut_arg("help", |arg| arg.hide(true)));
        man.render_synopsis_section(&mut part)?;
        man.render_options_section(&mut part)?;
        // What is a section of a page of its own is a paragraph here.
        for line in String::from_utf8_lossy(&part).lines() {
            match line {
                ".SH SYNOPSIS" | ".SH OPTIONS" => writeln!(page, ".PP")?,
                line => writeln!(page, "{line}")?,
            }
        }
    }
    page.write_all(AFTER.as_bytes())?;
    // Each part that was rendered begins with these two; once is enough.
    let preamble = |line: &str| line.starts_with(".ie \\n(.g") || line.starts_with(".el .ds Aq");
    let page = String::from_utf8_lossy(&page).into_owned();
    let body: String = page.lines().skip(2).filter(|l| !preamble(l)).map(|l| format!("{}\n", l.trim_end())).collect();
    let head: String = page.lines().take(2).map(|l| format!("{l}\n")).collect();
    Ok(head + &body)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('-', "\\-")
}
