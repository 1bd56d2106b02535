// Stand-in for ESP-IDF's.
#pragma once
#include <stdio.h>
#define ESP_LOGI(tag, ...) ((void)(tag))
#define ESP_LOGE(tag, ...) \
    (fprintf(stderr, "E %s: ", tag), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))
