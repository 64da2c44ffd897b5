/* Copyright: onprem.rollout contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * serve PORT STATUS TEXT: all of a container image. Answers every request with the status, the text and $MESSAGE. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words)
{
    const char *message = getenv("MESSAGE");
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    char request[4096];

    if (count != 4)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, exit);
    address.sin_port = htons(atoi(words[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
        perror("serve");
        return 1;
    }
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (read(client, request, sizeof request) > 0)
            dprintf(client, "HTTP/1.0 %s\r\nContent-Type: text/plain\r\n\r\n%s %s\n", words[2], words[3], message ? message : "");
        close(client);
    }
}
