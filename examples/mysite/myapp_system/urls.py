from django.urls import path

from . import views

urlpatterns = [path("api/login/", views.Login.as_view())]
