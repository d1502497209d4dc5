//! Abbreviations and what they stand for.

/// Read with or without their full stop. Lower case; compared without case.
const ALWAYS: &[(&str, &str)] = &[
    ("mr", "Mister"),
    ("mrs", "Missus"),
    ("prof", "Professor"),
    ("approx", "approximately"),
    ("appt", "appointment"),
    ("appts", "appointments"),
    ("dept", "department"),
    ("blvd", "Boulevard"),
    ("hwy", "Highway"),
    ("bldg", "building"),
    ("govt", "government"),
    ("mgr", "manager"),
    ("asap", "as soon as possible"),
    ("btw", "by the way"),
    ("fyi", "for your information"),
    ("a.m", "AM"),
    ("p.m", "PM"),
    ("e.g", "for example"),
    ("i.e", "that is"),
    ("vs", "versus"),
    ("etc", "et cetera"),
    ("n/a", "not available"),
    ("w/o", "without"),
    ("w/", "with"),
    ("c/o", "care of"),
    ("and/or", "and or"),
    ("a.k.a", "also known as"),
    ("u.s", "U-S"),
    ("u.k", "U-K"),
    ("u.s.a", "U-S-A"),
    ("p.o", "P-O"),
    ("ph.d", "P-H-D"),
    ("r&d", "R and D"),
    ("q&a", "Q and A"),
    ("faq", "F-A-Q"),
    ("faqs", "F-A-Qs"),
    ("24/7", "twenty-four seven"),
    ("24-7", "twenty-four seven"),
    ("9/11", "nine eleven"),
    ("50/50", "fifty-fifty"),
    ("50-50", "fifty-fifty"),
    ("wi-fi", "why-fye"),
    ("wifi", "why-fye"),
];

/// Read only with their full stop: without it they are words or names.
const WITH_STOP: &[(&str, &str)] = &[
    ("ms", "Miz"),
    ("ave", "Avenue"),
    ("rd", "Road"),
    ("ln", "Lane"),
    ("ct", "Court"),
    ("pl", "Place"),
    ("sq", "square"),
    ("apt", "apartment"),
    ("ste", "suite"),
    ("fl", "floor"),
    ("jr", "Junior"),
    ("sr", "Senior"),
    ("inc", "Incorporated"),
    ("ltd", "Limited"),
    ("co", "Company"),
    ("corp", "Corporation"),
    ("tel", "telephone"),
    ("ext", "extension"),
    ("incl", "including"),
    ("excl", "excluding"),
    ("max", "maximum"),
    ("min", "minimum"),
    ("est", "established"),
    ("gen", "General"),
    ("rev", "Reverend"),
    ("capt", "Captain"),
    ("lt", "Lieutenant"),
    ("mt", "Mount"),
    ("hr", "hour"),
    ("hrs", "hours"),
    ("mins", "minutes"),
    ("misc", "miscellaneous"),
    ("temp", "temperature"),
    ("info", "information"),
];

/// Capitalised and after a name, these are parts of an address even without a full stop.
const STREETS: &[(&str, &str)] = &[
    ("St", "Street"),
    ("Dr", "Drive"),
    ("Ave", "Avenue"),
    ("Rd", "Road"),
    ("Ln", "Lane"),
    ("Ct", "Court"),
    ("Pkwy", "Parkway"),
    ("Sq", "Square"),
];

/// Words that make the number before them a house number.
const STREET_WORDS: &[&str] = &[
    "street",
    "road",
    "avenue",
    "lane",
    "drive",
    "boulevard",
    "court",
    "place",
    "way",
    "square",
    "parkway",
    "highway",
    "terrace",
    "close",
    "crescent",
    "st",
    "rd",
    "ave",
    "ln",
    "dr",
    "blvd",
    "ct",
    "pkwy",
    "hwy",
    "sq",
];

const STATES: &[(&str, &str)] = &[
    ("AL", "Alabama"),
    ("AK", "Alaska"),
    ("AZ", "Arizona"),
    ("AR", "Arkansas"),
    ("CA", "California"),
    ("CO", "Colorado"),
    ("CT", "Connecticut"),
    ("DE", "Delaware"),
    ("DC", "D-C"),
    ("FL", "Florida"),
    ("GA", "Georgia"),
    ("HI", "Hawaii"),
    ("ID", "Idaho"),
    ("IL", "Illinois"),
    ("IN", "Indiana"),
    ("IA", "Iowa"),
    ("KS", "Kansas"),
    ("KY", "Kentucky"),
    ("LA", "Louisiana"),
    ("ME", "Maine"),
    ("MD", "Maryland"),
    ("MA", "Massachusetts"),
    ("MI", "Michigan"),
    ("MN", "Minnesota"),
    ("MS", "Mississippi"),
    ("MO", "Missouri"),
    ("MT", "Montana"),
    ("NE", "Nebraska"),
    ("NV", "Nevada"),
    ("NH", "New Hampshire"),
    ("NJ", "New Jersey"),
    ("NM", "New Mexico"),
    ("NY", "New York"),
    ("NC", "North Carolina"),
    ("ND", "North Dakota"),
    ("OH", "Ohio"),
    ("OK", "Oklahoma"),
    ("OR", "Oregon"),
    ("PA", "Pennsylvania"),
    ("RI", "Rhode Island"),
    ("SC", "South Carolina"),
    ("SD", "South Dakota"),
    ("TN", "Tennessee"),
    ("TX", "Texas"),
    ("UT", "Utah"),
    ("VT", "Vermont"),
    ("VA", "Virginia"),
    ("WA", "Washington"),
    ("WV", "West Virginia"),
    ("WI", "Wisconsin"),
    ("WY", "Wyoming"),
];

fn find(table: &'static [(&'static str, &'static str)], key: &str) -> Option<&'static str> {
    table
        .iter()
        .find_map(|(short, long)| short.eq_ignore_ascii_case(key).then_some(*long))
}

/// What `core` stands for. `stop`: a full stop follows it. `previous` and `next` are its neighbours.
pub fn expand(core: &str, stop: bool, previous: Option<&str>, next: Option<&str>) -> Option<&'static str> {
    if let Some(long) = find(ALWAYS, core) {
        // "US" and the like are excluded by their inner full stops; "VS" and "BTW" read the same in any case.
        return Some(long);
    }
    let capital = |word: Option<&str>| word.is_some_and(|word| word.starts_with(|c: char| c.is_uppercase()));
    // "Oak St", "23rd St.", "12 Hill Dr." against "Dr. Hill", "St. Mary".
    let ordinal = previous.is_some_and(|word| {
        word.starts_with(|c: char| c.is_ascii_digit()) && word.ends_with(char::is_alphabetic)
    });
    let plain =
        previous.is_some_and(|word| matches!(word, "The" | "A" | "Is" | "At" | "Ask" | "Call" | "See"));
    let named = (capital(previous) && !plain) || ordinal;
    if let Some((_, long)) = STREETS.iter().find(|(short, _)| *short == core)
        && named
        && !(matches!(core, "St" | "Dr") && capital(next))
    {
        return Some(long);
    }
    match core {
        "St" if capital(next) => return Some("Saint"),
        "Dr" if stop || capital(next) => return Some("Doctor"),
        _ => {}
    }
    if stop { find(WITH_STOP, core) } else { None }
}

/// Whether the word makes the number before it a house number.
pub fn is_street(word: &str) -> bool {
    STREET_WORDS
        .iter()
        .any(|street| street.eq_ignore_ascii_case(word))
}

/// A United States state's name by its postal code.
pub fn state(code: &str) -> Option<&'static str> {
    STATES
        .iter()
        .find_map(|(short, long)| (*short == code).then_some(*long))
}
