"""The addresses of the API for people, under `/api/v1/`."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
