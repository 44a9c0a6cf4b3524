"""The page's own words, English and Russian."""

# key -> (English, Russian)
WORDS = {
    "kicker": ("prompt inspection", "осмотр запроса"),
    "base": ("Base", "Основа"),
    "before": ("Before", "Прежде"),
    "adapter": ("Adapter", "Адаптер"),
    "strength": ("Strength", "Сила"),
    "weights": ("Weights", "Веса"),
    "answers": ("What they answer", "Что они отвечают"),
    "answer_base": ("The base", "Основа"),
    "answer_adapter": ("The base wearing the adapter", "Основа с адаптером"),
    "answers_why_parted": (
        "Each model wrote its likeliest word piece every time; the first one at which the two "
        "answers differ is marked.",
        "Каждая модель всякий раз писала самый вероятный фрагмент слова; отмечен первый, на "
        "котором ответы разошлись.",
    ),
    "answers_why_same": (
        "Each model wrote its likeliest word piece every time, and the two answers are the same.",
        "Каждая модель всякий раз писала самый вероятный фрагмент слова, и ответы совпали.",
    ),
    "stops": ("the answer ends here", "здесь ответ кончается"),
    "cut": ("Cut here: the length limit was reached.", "Обрезано: достигнут предел длины."),
    "inside": ("What happens inside", "Что происходит внутри"),
    "inside_why": (
        "Seen at the end of the prompt and of what both answers say alike, where they part.",
        "Взгляд на конец запроса и общего начала ответов, где они расходятся.",
    ),
    "where": ("Where the expectations change", "Где меняются ожидания"),
    "kl_why": (
        "KL measures how far apart the two models’ guesses about the next token are, in nats: 0 "
        "means the same guesses, 0.1 a slight shift, 1 or more another expectation altogether "
        "(KL(base || adapter)).",
        "KL показывает, насколько расходятся догадки двух моделей о следующем токене, в натах: "
        "0 означает одни и те же догадки, 0,1 лёгкий сдвиг, 1 и больше уже совсем другое "
        "ожидание (KL(основа || адаптер)).",
    ),
    "track_adapter": ("Along the adapter’s answer", "Вдоль ответа адаптера"),
    "track_base": ("Along the base’s answer", "Вдоль ответа основы"),
    "track_given": ("Along the given text", "Вдоль данного текста"),
    "nats": ("nats", "нат"),
    "prompt": ("Prompt", "Запрос"),
    "answer": ("answer", "ответ"),
    "tallest": ("tallest bar:", "самый высокий столбик:"),
    "chips_why": (
        "The darker a token, the more the adapter changed what is expected after it. Select one, "
        "or walk with the arrow keys; · is a space, ↵ a new line, tokens with a line below are "
        "the answer’s.",
        "Чем темнее токен, тем сильнее адаптер изменил ожидания после него. Выберите токен или "
        "идите стрелками; · это пробел, ↵ новая строка, подчёркнутые токены принадлежат ответу.",
    ),
    "bars_why": (
        "Two bars show how likely a token was as the next one, without and with the adapter; "
        "within one place all bars share one scale, and rank 1 is the likeliest token.",
        "Два столбика показывают, насколько вероятен токен следующим без адаптера и с ним; в "
        "одном месте масштаб у всех общий, место 1 у самого вероятного токена.",
    ),
    "table": ("All figures as a table", "Все числа таблицей"),
    "number": ("#", "№"),
    "token": ("After", "После"),
    "kl": ("KL", "KL"),
    "rose": ("Rose most", "Сильнее всех вырос"),
    "fell": ("Fell most", "Сильнее всех упал"),
    "next": ("Stands next", "Стоит следующим"),
}

# Where an adapter stands beside another one instead of the base.
BETWEEN = {
    "answer_base": ("Wearing “{before}”", "С адаптером «{before}»"),
    "answer_adapter": ("Wearing “{adapter}”", "С адаптером «{adapter}»"),
    "track_adapter": ("Along the answer of “{adapter}”", "Вдоль ответа «{adapter}»"),
    "track_base": ("Along the answer of “{before}”", "Вдоль ответа «{before}»"),
    "kl_why": tuple(
        text.replace("base || adapter", "before || after").replace(
            "основа || адаптер", "до || после"
        )
        for text in WORDS["kl_why"]
    ),
    "bars_why": (
        "Two bars show how likely a token was as the next one, with the one adapter and with the "
        "other; within one place all bars share one scale, and rank 1 is the likeliest token.",
        "Два столбика показывают, насколько вероятен токен следующим с одним адаптером и с другим; "
        "в одном месте масштаб у всех общий, место 1 у самого вероятного токена.",
    ),
}

# What the script writes beside a selected token.
DETAIL = {
    "en": {
        "after": "What comes next after",
        "nats": "nats between base and adapter",
        "base": "base",
        "adapter": "with the adapter",
        "next": "Stands next in the text",
        "rose": "Became likelier",
        "fell": "Became less likely",
        "none": "None",
        "rank": "rank",
    },
    "ru": {
        "after": "Что ожидается после",
        "nats": "нат между основой и адаптером",
        "base": "основа",
        "adapter": "с адаптером",
        "next": "Стоит следующим в тексте",
        "rose": "Стали вероятнее",
        "fell": "Стали менее вероятны",
        "none": "Нет таких",
        "rank": "место",
    },
}
