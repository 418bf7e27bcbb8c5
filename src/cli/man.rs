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
        let man = clap_mangen::Man::new(command.clone());
        man.render_synopsis_section(&mut part)?;
        man.render_options_section(&mut part)?;
        // What is a section of a page of its own is a paragraph here.
        for line in String::from_utf8_lossy(&part).lines() {
            match line {
                ".SH SYNOPSIS" | ".SH OPTIONS" => writeln!(page, ".PP")?,
                line if line.starts_with(".ie ") || line.starts_with(".el ") => {}
                line => writeln!(page, "{line}")?,
            }
        }
    }
    page.write_all(AFTER.as_bytes())?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('-', "\\-")
}
