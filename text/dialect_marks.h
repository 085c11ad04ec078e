#ifndef TEXT_DIALECT_MARKS_H
#define TEXT_DIALECT_MARKS_H

/* Marks that both the table of dialects and the reader need. */

#define DEEPSEEK_BEGIN "<｜tool▁calls▁begin｜>"
#define DEEPSEEK_END "<｜tool▁calls▁end｜>"
#define DEEPSEEK_CALL "<｜tool▁call▁begin｜>"
#define DEEPSEEK_SEP "<｜tool▁sep｜>"
#define DEEPSEEK_CALL_END "<｜tool▁call▁end｜>"

#endif
