CREATE TABLE IF NOT EXISTS accounts (
	id        BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
	name      VARCHAR(255) NOT NULL,
	token     CHAR(32) CHARACTER SET ascii NOT NULL UNIQUE,
	deposited BIGINT NOT NULL,
	balance   BIGINT NOT NULL,
	n         BIGINT UNSIGNED NOT NULL DEFAULT 0 -- the last private number
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS games (
	id       BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
	pools    INT UNSIGNED NOT NULL DEFAULT 0, -- opened so far
	state    TINYINT UNSIGNED NOT NULL,
	image    TEXT NOT NULL                    -- proto.Game, as JSON
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS pools (
	id       BIGINT UNSIGNED PRIMARY KEY,
	game     BIGINT UNSIGNED NOT NULL,
	state    TINYINT UNSIGNED NOT NULL,
	outcomes TINYINT UNSIGNED NOT NULL,
	takeout  SMALLINT UNSIGNED NOT NULL,  -- basis points
	house    BIGINT NOT NULL DEFAULT 0,   -- takeout and breakage, when settled
	image    TEXT NOT NULL,               -- proto.Pool without odds, as JSON
	KEY (game)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS predictions (
	id      BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
	account BIGINT UNSIGNED NOT NULL,
	request BIGINT UNSIGNED NOT NULL,
	pool    BIGINT UNSIGNED NOT NULL,
	outcome TINYINT UNSIGNED NOT NULL,
	amount  BIGINT NOT NULL,
	state   TINYINT UNSIGNED NOT NULL,
	payout  BIGINT NOT NULL DEFAULT 0,
	arrived BIGINT NOT NULL,
	UNIQUE KEY (account, request),
	KEY (pool)
) ENGINE=InnoDB;
