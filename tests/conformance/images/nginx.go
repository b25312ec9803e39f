package main

// nginxFiles configures nginx as its own image is: the page on port 80, logs
// to the container's output.
func nginxFiles() tree {
	t := tree{}
	t.text("etc/nginx/nginx.conf", `user www-data;
worker_processes 2;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log notice;
events { worker_connections 512; }
http {
	include /etc/nginx/mime.types;
	default_type application/octet-stream;
	access_log /var/log/nginx/access.log;
	sendfile on;
	include /etc/nginx/conf.d/*.conf;
}
`)
	t.text("etc/nginx/conf.d/default.conf", `server {
	listen 80;
	server_name localhost;
	location / {
		root /usr/share/nginx/html;
		index index.html;
	}
}
`)
	t.link("var/log/nginx/access.log", "/dev/stdout")
	t.link("var/log/nginx/error.log", "/dev/stderr")
	t.dir("var/lib/nginx", 0o755)
	return t
}
