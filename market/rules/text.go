package rules

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// text is a question or a label in which only the minute is left to fill in: the parts between the minutes.
type text []string

// at is the text at a minute of the game.
func (t text) at(minute uint16) string {
	return strings.Join(t, strconv.Itoa(int(minute)))
}

// text replaces all placeholders but {minute}. What it puts in is not looked at again: a player may well be called
// "{minute}". player is nil where there is none.
func (c *compiler) text(p place, s string, teams [2]string, player *string) text {
	if !utf8.ValidString(s) {
		c.wrongIn(p, "the text is not UTF-8")
		return nil
	}
	var filled text
	var part strings.Builder
	for rest, column := s, 1; ; {
		before, after, found := strings.Cut(rest, "{")
		part.WriteString(before)
		if !found {
			break
		}
		column += utf8.RuneCountInString(before)
		name, tail, closed := strings.Cut(after, "}")
		switch {
		case closed && name == "team1":
			part.WriteString(teams[0])
		case closed && name == "team2":
			part.WriteString(teams[1])
		case closed && name == "minute":
			filled = append(filled, part.String())
			part.Reset()
		case closed && name == "player" && player != nil:
			part.WriteString(*player)
		case closed && name == "player":
			c.wrongAt(p, 1, column, "{player} is known only to labels of outcomes with each = \"shortlist\"")
			return nil
		case closed:
			c.wrongAt(p, 1, column, "there is no {%s}, expected {team1}, {team2}, {minute} or {player}", name)
			return nil
		default:
			c.wrongAt(p, 1, column, "{ is not closed, expected {team1}, {team2}, {minute} or {player}")
			return nil
		}
		column += len("{}") + utf8.RuneCountInString(name)
		rest = tail
	}
	filled = append(filled, part.String())

	longest := filled.at(1<<16 - 1)
	switch {
	case strings.TrimSpace(longest) == "":
		c.wrongIn(p, "the text is empty")
		return nil
	case len(longest) > textMax:
		c.wrongIn(p, "the text can reach %d bytes (%.40q…), expected at most %d", len(longest), longest, textMax)
		return nil
	case !utf8.ValidString(longest):
		c.wrongIn(p, "the text with its names filled in is not UTF-8")
		return nil
	}
	return filled
}
