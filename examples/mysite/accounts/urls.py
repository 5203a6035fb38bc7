from django.urls import path

from . import views

urlpatterns = [
    path("register/", views.Register.as_view()),
    path("api/user-count/", views.UserCount.as_view()),
]
