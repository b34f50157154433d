CREATE DATABASE IF NOT EXISTS baseline;
CREATE OR REPLACE USER baseline@'127.0.0.1' IDENTIFIED BY '{{.Site.Password}}';
GRANT ALL ON baseline.* TO baseline@'127.0.0.1';
