//! What a transcript begins with, which tells a model the language, the task, and whether there are timestamps; as `generation_config.json`
//! has the numbers of these tokens.

use crate::generate::Model;
use crate::generate::files::GENERATION;
use crate::{Error, Result};
use serde_json::Value as Json;

/// What is written of a sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// What is said.
    Transcribe,
    /// What it means, in English.
    Translate,
}

impl Task {
    /// As `task_to_id` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Task::Transcribe => "transcribe",
            Task::Translate => "translate",
        }
    }
}

/// The special tokens of a model, and which of them it begins with.
#[derive(Clone, Debug, PartialEq)]
pub struct Specials {
    /// What a decoder begins with.
    pub start: i64,
    /// Languages, and the tokens that stand for them; none of a model of one language.
    pub languages: Vec<(String, i64)>,
    /// Tasks and their tokens.
    pub tasks: Vec<(String, i64)>,
    /// The token that says that there are no timestamps; the one behind it is the time 0.
    pub no_timestamps: Option<i64>,
    /// Tokens that never come.
    pub suppressed: Vec<i64>,
    /// Tokens that do not come first.
    pub suppressed_first: Vec<i64>,
    /// The last time that a transcript may begin with, counted from the first.
    pub latest_begin: Option<i64>,
    /// Tokens that a transcript has at most, but for the first ones.
    pub longest: usize,
    /// Language and task where nobody says any.
    language: Option<String>,
    task: Option<Task>,
    /// The same as tokens, which older folders have; `None` is a language to be told.
    forced: Vec<Option<i64>>,
}

impl Specials {
    /// What a model's folder says.
    ///
    /// # Errors
    /// When its settings of generation are damaged.
    pub fn of(model: &Model) -> Result<Specials> {
        let files = model.files();
        let json: Json = match files.get(GENERATION) {
            Some(text) => serde_json::from_str(text).map_err(|e| files.wrong(GENERATION, e))?,
            None => Json::Null,
        };
        let list = |field: &str| json[field].as_array().cloned().unwrap_or_default();
        let tokens = |field: &str| list(field).iter().filter_map(Json::as_i64).collect();
        let table = |field: &str| -> Vec<(String, i64)> {
            let all = json[field].as_object().into_iter().flatten();
            all.filter_map(|(name, id)| Some((bare(name).to_owned(), id.as_i64()?)))
                .collect()
        };
        let task = match json["task"].as_str() {
            None => None,
            Some("transcribe") => Some(Task::Transcribe),
            Some("translate") => Some(Task::Translate),
            Some(other) => return Err(files.wrong(GENERATION, format!("task is {other}"))),
        };
        // Pairs of places and tokens: those that stand at 1, 2 and so on.
        let forced = list("forced_decoder_ids");
        let forced = forced.iter().zip(1..).take_while(|(pair, at)| pair[0] == *at);
        Ok(Specials {
            start: model.start()?,
            languages: table("lang_to_id"),
            tasks: table("task_to_id"),
            no_timestamps: json["no_timestamps_token_id"].as_i64(),
            suppressed: tokens("suppress_tokens"),
            suppressed_first: tokens("begin_suppress_tokens"),
            latest_begin: json["max_initial_timestamp_index"].as_i64(),
            longest: json["max_length"].as_u64().map_or(usize::MAX / 2, |n| n as usize),
            language: json["language"].as_str().map(str::to_owned),
            task,
            forced: forced.map(|(pair, _)| pair[1].as_i64()).collect(),
        })
    }

    /// The token of the time 0.
    pub fn first_time(&self) -> Option<i64> {
        self.no_timestamps.map(|t| t + 1)
    }

    /// The language of a token.
    pub fn language(&self, token: i64) -> Option<&str> {
        self.languages
            .iter()
            .find(|(_, t)| *t == token)
            .map(|(name, _)| name.as_str())
    }

    /// The first tokens of a transcript. `tell` is asked for the token of the language where nothing says it.
    ///
    /// # Errors
    /// When the model has no such language or task, or no timestamps.
    pub fn prompt(
        &self,
        language: Option<&str>,
        task: Option<Task>,
        timestamps: bool,
        tell: impl FnOnce(&Specials) -> Result<i64>,
    ) -> Result<Vec<i64>> {
        let (language, task) = (language.or(self.language.as_deref()), task.or(self.task));
        let mut tokens = vec![Some(self.start)];
        if language.is_none() && task.is_none() {
            tokens.extend(&self.forced);
        }
        let told = match language {
            Some(language) => Some(named(&self.languages, bare(&language.to_lowercase()), "language")?),
            None if !self.languages.is_empty() && tokens.get(1).is_none_or(Option::is_none) => Some(tell(self)?),
            None => None,
        };
        match (told, tokens.get_mut(1)) {
            (Some(_), Some(place)) => *place = told,
            (Some(_), None) => tokens.push(told),
            (None, _) => {}
        }
        if let Some(task) = task {
            tokens.push(Some(named(&self.tasks, task.name(), "task")?));
        } else if language.is_some() && !self.tasks.is_empty() {
            tokens.push(Some(named(&self.tasks, Task::Transcribe.name(), "task")?));
        }
        let mut tokens: Vec<i64> = tokens.into_iter().flatten().collect();
        let last = tokens.last().copied();
        match self.no_timestamps {
            None if timestamps => {
                let message = "a model without timestamps: generation_config.json has no no_timestamps_token_id";
                return Err(Error::Option(message.into()));
            }
            none if timestamps && last == none => _ = tokens.pop(),
            Some(none) if !timestamps && last != Some(none) => tokens.push(none),
            _ => {}
        }
        Ok(tokens)
    }
}

/// A name without the signs of a token around it.
fn bare(name: &str) -> &str {
    name.trim_start_matches("<|").trim_end_matches("|>")
}

fn named(all: &[(String, i64)], name: &str, what: &str) -> Result<i64> {
    match all.iter().find(|(n, _)| n == name) {
        Some((_, token)) => Ok(*token),
        None if all.is_empty() => Err(Error::Option(format!("{what} {name}: a model of one {what}"))),
        None => {
            let known: Vec<&str> = all.iter().map(|(n, _)| n.as_str()).collect();
            let message = format!("{what} {name}: expected one of {}", known.join(", "));
            Err(Error::Option(message))
        }
    }
}
