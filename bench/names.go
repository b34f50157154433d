package bench

import (
	"strconv"
	"strings"
)

// nameOf is player i's name as a guest, from 0: Ada, Bao, … and, when the names are used up, Ada 2.
func nameOf(i int) string {
	name := names[i%len(names)]
	if round := i / len(names); round > 0 {
		name += " " + strconv.Itoa(round+1)
	}
	return name
}

var names = strings.Fields(`
Ada Bao Carla Diego Elif Femi Greta Hiro Ines Jonas Kofi Lena Mateo Noor Olga Pavel Qiu Rosa Sami Tove
Umut Vera Wanda Xavi Yara Zoe Aino Bilal Chidi Dalia Emil Freya Goran Hanna Ivo Jana Karim Lucia Marek Nadia
Oskar Petra Rafael Selma Tariq Ursula Viktor Wei Ximena Yusuf Zofia Amir Bianca Cem Dora Enzo Fatima Georg Hedda Ilya
Joana Kenji Leila Milan Nina Omar Paula Rahul Sofia Tomas Uma Vito Wiktor Yuki Zara Anders Beata Carlos Dina Erik
Flora Gabor Hugo Irena Jamal Klara Liam Maja Nils Oona Pedro Renata Stefan Tanja Ugo Valeria Wim Yasmin Zeno Agnes
Boris Clara David Esther Filip Gaia Henrik Isabel Jakob Katya Luca Miriam Nikola Otto Priya Ruben Sara Timo Ulla
Vasil Wilma Yann Zuzana Alba Bruno Celine Dario Eva Felix Gloria Hassan Ida Julian Kaia Leo Marta Nora Orhan Pia
Rana Simon Teresa Uri Violet Walid Yelena Zain Alma Basil Cora Dmitri Edda Farid Gemma Heidi Imran Judit Kaspar Lotte
Malik Nelly Oleg Perla Remy Sonja Theo Unai Vanja Willem Ylva Zora Arlo Berit Cyrus Delia Eero Fiona Gil Helga
Isak Jasmin Kim Lars Mona Noah Odile Pablo Runa Sven Tilda Ulrik Vida Wolf Yago Zelda
`)
