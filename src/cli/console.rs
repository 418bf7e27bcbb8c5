//! `duplex` alone: the console.

use super::{
    output::{Ending, Outcome, problem},
    places::Places,
    session,
};
use crate::{
    model::ExitCode,
    tui::{self, i18n::Lang, theme::ThemeName},
};
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Watch only: nothing can be changed from this console
    #[arg(long)]
    readonly: bool,
    #[command(flatten)]
    look: Look,
    /// Open this job at once
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
}

/// How a console looks.
#[derive(Debug, clap::Args)]
pub struct Look {
    /// Language of the screen: en or zh-CN; otherwise as it was left, else the locale's
    #[arg(long, value_parser = language)]
    lang: Option<Lang>,
    /// Colours: auto, light, dark, mono or deuteranopia
    #[arg(long, value_parser = theme)]
    theme: Option<ThemeName>,
    /// Draw with ASCII characters only
    #[arg(long)]
    ascii: bool,
    /// Click and scroll with the mouse (M switches it)
    #[arg(long)]
    mouse: bool,
}

impl Look {
    /// Hands what was asked for to a console.
    pub fn apply(&self, console: &mut tui::Options) {
        console.lang = self.lang;
        console.theme = self.theme;
        console.ascii = self.ascii;
        console.mouse = self.mouse;
    }
}

fn language(text: &str) -> Result<Lang, String> {
    Lang::parse(text).ok_or_else(|| "en or zh-CN".into())
}

fn theme(text: &str) -> Result<ThemeName, String> {
    ThemeName::parse(text).ok_or_else(|| "auto, light, dark, mono or deuteranopia".into())
}

/// Opens the console on the engine that runs; starts one first where none does.
pub fn run(places: &Places, options: Options, runtime: &tokio::runtime::Runtime) -> Outcome {
    let mut console =
        tui::Options::new(places.live_socket(), places.config.clone(), places.state.clone(), options.readonly);
    let starting = places.clone();
    console.start_engine = Some(Arc::new(move || {
        let places = starting.clone();
        Box::pin(async move {
            match session::connect_or_start(&places, true).await {
                Ok(_) => Ok(()),
                Err(Ending::Error(problem)) => Err(format!("{}; {}", problem.what, problem.remedy)),
                Err(other) => Err(format!("{other:?}")),
            }
        })
    }));
    options.look.apply(&mut console);
    console.open = options.job;
    runtime.block_on(tui::run(console)).map_err(no_screen)?;
    Ok(ExitCode::Fine)
}

/// Why there is no console, or no longer.
pub fn no_screen(error: tui::TerminalError) -> Ending {
    let code = match &error {
        tui::TerminalError::None | tui::TerminalError::Dumb(_) => ExitCode::Usage,
        _ => ExitCode::Failed,
    };
    problem(code, error.to_string(), error.remedy())
}
